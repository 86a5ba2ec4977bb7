// Package top is the dashboard that an operator reads in a terminal.
//
// [Render] draws a [Frame]: a pure function from a snapshot, its history, a view and a size to lines of exactly that size.
// [Model] feeds it from a [Source] and from keys. [Text] is every view once, for pipes and for terminals that can do no more.
//
// Names and keys are bytes of strangers. What a terminal would act on, what would change the direction of the text, and what
// terminals disagree about the width of is escaped; the rest is cut by the columns that it takes.
package top
