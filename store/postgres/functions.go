package pgstore

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

// kind is a strategy that the database can decide by itself.
type kind int

const (
	gcra kind = iota
	tokenBucket
	fixedWindow
	kinds
)

// function is the database's form of one strategy.
type function struct {
	signature string // name and types, as to_regprocedure reads them
	create    string // the statement that creates it, unless it is there
	call      string // the statement that runs it
	callOrEnd string // the same, but ends the transaction with an error if it does not decide
}

const (
	// clockSQL is the database's clock in whole epoch milliseconds.
	// The epoch is a float8 here, off by up to a quarter of a microsecond.
	clockSQL = `floor(date_part('epoch', clock_timestamp()) * 1000 + 0.0005)`
	// largest bounds the numbers that functions write. Below it PostgreSQL and ECMAScript
	// write the same digits; they part over the exponent from 1e15 on, and over the
	// choice of digits from 2^54 on.
	largest = 1e15
)

// makeFunctions builds the functions for one table. A function's name ends in a digest of
// its text, so a name always means the same function, whoever created it.
func makeFunctions(n names) (fns [kinds]function) {
	files := [kinds]string{gcra: "gcra", tokenBucket: "tokenbucket", fixedWindow: "fixedwindow"}
	frame := readSQL("frame")
	for k, file := range files {
		parts := sections(readSQL(file))
		text := strings.NewReplacer(
			"{{name}}", file,
			"{{parameters}}", strings.TrimSpace(parts["parameters"]),
			"{{variables}}", parts["variables"],
			"{{read}}", parts["read"],
			"{{decide}}", parts["decide"],
			"{{state}}", parts["state"],
			"{{until}}", parts["until"],
			"{{table}}", n.table,
			"{{clock}}", clockSQL,
			"{{noted}}", notedSQL,
			"{{note}}", noteSQL,
		).Replace(frame)
		text = expandNumbers(text)
		digest := sha256.Sum256([]byte(text))
		name := n.schema + quote("throttlekit_"+file+"_"+hex.EncodeToString(digest[:6]))
		count := 1 + strings.Count(parts["parameters"], "float8")
		fns[k] = function{
			signature: name + "(text" + strings.Repeat(",double precision", count) + ",boolean)",
			create:    strings.Replace(text, "{{function}}", name, 1),
			call:      "SELECT " + callSQL(name, count),
			callOrEnd: callOrEnd(callSQL(name, count)),
		}
	}
	return fns
}

func readSQL(name string) string {
	text, err := sqlFiles.ReadFile("sql/" + name + ".sql")
	if err != nil {
		return "" // the files are embedded: without them, nothing here would compile
	}
	return string(text)
}

// sections cuts a strategy's file at the lines that name a part of the frame.
func sections(text string) map[string]string {
	parts := make(map[string]string)
	current := ""
	for line := range strings.Lines(text) {
		switch line {
		case "-- parameters\n", "-- variables\n", "-- read\n", "-- decide\n", "-- state\n", "-- until\n":
			current = strings.TrimSpace(strings.TrimPrefix(line, "--"))
		default:
			parts[current] += line
		}
	}
	for title, part := range parts {
		parts[title] = strings.TrimRight(part, "\n")
	}
	return parts
}

// callSQL locks the key $1 and runs a function on it, at the time $2 or null, with count
// numbers in all. The session suits if it writes the shortest text that reads back to the
// same number; the lock is void, which is not null.
func callSQL(name string, count int) string {
	var b strings.Builder
	b.WriteString(name + "($1")
	for i := range count {
		fmt.Fprintf(&b, ", $%d", 2+i)
	}
	b.WriteString(", current_setting('extra_float_digits')::int < 1 OR pg_advisory_xact_lock(hashtextextended($1, 0)) IS NULL)")
	return b.String()
}

// callOrEnd reads the verdict as a boolean, which 0 and 1 are and any other is not.
func callOrEnd(call string) string {
	return "SELECT reply, left(reply, 1)::boolean FROM (SELECT " + call + " AS reply OFFSET 0) AS called"
}

// numbers are what files may say about the text of a number.
var numbers = map[string]string{
	// number is its text as ECMAScript writes it. PostgreSQL differs for exponents from
	// -5 to -9 alone: it turns to exponents earlier and gives them two digits. PL/pgSQL
	// needs the parentheses, or it takes a THEN for its own.
	"number": `(CASE WHEN {v} = 0 THEN '0'` +
		` WHEN abs({v}) >= float8 '1e-4' OR abs({v}) < float8 '1e-9' THEN {v}::text` +
		` WHEN abs({v}) < float8 '1e-6' THEN replace({v}::text, 'e-0', 'e-')` +
		` ELSE concat(CASE WHEN {v} < 0 THEN '-' END, CASE WHEN abs({v}) < float8 '1e-5' THEN '0.00000' ELSE '0.0000' END,` +
		` translate(split_part({v}::text, 'e', 1), '-.', '')) END)`,
	// unusual is whether that may differ from PostgreSQL's own text, or the number is
	// beyond. Negative numbers pass for unusual for the sake of one comparison less.
	"unusual": `({v} <> 0 AND {v} < float8 '1e-4' OR {v} >= float8 '1e15')`,
	// beyond is whether number does not hold for it; NaN is beyond all.
	"beyond": `abs({v}) >= float8 '1e15'`,
}

var numberCall = regexp.MustCompile(`\{\{(number|unusual|beyond) (.+?)\}\}`)

func expandNumbers(text string) string {
	return numberCall.ReplaceAllStringFunc(text, func(call string) string {
		match := numberCall.FindStringSubmatch(call)
		return strings.ReplaceAll(numbers[match[1]], "{v}", match[2])
	})
}
