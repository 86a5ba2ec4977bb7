package main

// The example says what was admitted, and what was used.
func Example() {
	main()
	// Output:
	// first: admitted, with room for 80 tokens of output
	// second: refused, nothing was charged
	// first: complete; 44 tokens were metered, 42 reported, 2 given back
	// second: admitted, with room for 38 tokens of output
	// second: cut, for the budget is used up; 60 tokens were metered, 58 reported, 2 given back
	// 100 tokens were used of 100; 2 requests were admitted, 1 refused, 1 cut
}
