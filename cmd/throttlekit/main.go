// Command throttlekit runs and asks the ThrottleKit service.
package main

func main() {}
