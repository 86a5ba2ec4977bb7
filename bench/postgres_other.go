//go:build !unix

package main

import (
	"errors"

	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
)

// postgresRows need pgtest, which starts PostgreSQL on Unix.
func postgresRows(measure.Schedule) []report.Row {
	return failedRow(errors.New("PostgreSQL is started for this on Unix only"))
}
