package main

// The example says who has a slot. Two may work at once, and who has done leaves room for others.
func Example() {
	main()
	// Output:
	// nightly: has a slot, 1 of 2 left
	// ann: works
	// bob: denied, for all slots are taken
	// bob: works
}
