package main

// The example says what was used, and stops at the first refusal. The piece that crosses the budget is booked in full.
func Example() {
	main()
	// Output:
	// ann asks: Where is a limit kept?
	//   a record of two (14 of 18 left)
	//   numbers for each key (10 of 18 left)
	//   complete: 8 tokens
	// ann asks: Tell me a story.
	//   once upon a time (6 of 18 left)
	//   there was a stream (2 of 18 left)
	//   that nobody metered and (0 of 18 left)
	//   cut after 12 tokens: the budget of 18 tokens is used up
	// ann asks: Go on.
	//   cut after 0 tokens: the budget of 18 tokens is used up
	// bob asks: Where is a limit kept?
	//   a record of two (14 of 18 left)
	//   numbers for each key (10 of 18 left)
	//   complete: 8 tokens
}
