// Package measure times things against each other on a machine that is not quiet.
//
// [Race] lets its contestants run by turns, in short slices, so that whatever else the machine does meets all of them
// alike. What counts is the quotient of slices that stood next to each other; a [Figure] is the median of many such
// quotients and the quartiles around it. Where the system tells how long threads waited for a CPU, rounds in which
// others took it away are run again, so that a busy machine makes a race longer rather than wrong. Times in nanoseconds
// come along for orientation only.
package measure
