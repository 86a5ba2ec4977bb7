// Package service holds policies by name and answers for them, without a transport.
// A program that embeds it runs exactly what the server runs.
//
// A [Policy] is what a name in a policy file builds. What it can do are small
// interfaces (check, check many, peek, forecast, debit, reserve); the service asks for the capability
// and answers [throttlekit.ErrUnsupported] if the policy lacks it. When a store cannot
// decide, the fail mode does, and the answer says so to every [Tap].
//
// All types are safe for concurrent use.
package service
