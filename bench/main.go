// Command bench compares ThrottleKit with its peers.
package main

func main() {}
