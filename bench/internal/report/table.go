package report

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the rows of one area and, below them, what each of them compares.
func WriteTable(w io.Writer, title string, rows []Row) error {
	var b strings.Builder
	b.WriteString("\n" + title + "\n\n")
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	lines := []string{"  #\tname\tvalue\tunit\ttarget\tmet\thalf of the slices within"}
	for i := range rows {
		r := &rows[i]
		cells := []string{fmt.Sprintf("%3d", i+1), r.Name, number(r.Value), r.Unit, orDash(r.Target), r.verdict(), r.spread()}
		lines = append(lines, strings.Join(cells, "\t"))
	}
	if _, err := io.WriteString(t, strings.Join(lines, "\n")+"\n"); err != nil {
		return err
	}
	if err := t.Flush(); err != nil {
		return err
	}
	b.WriteByte('\n')
	for i := range rows {
		writeNote(&b, i+1, &rows[i])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeNote(b *strings.Builder, n int, r *Row) {
	const width = 112
	text := r.Note
	if r.Error != "" {
		first, _, _ := strings.Cut(r.Error, "\n")
		text = "FAILED: " + first + ". " + text
	}
	line := fmt.Sprintf("%3d", n)
	gap := "  "
	for word := range strings.FieldsSeq(text) {
		if len(line)+len(gap)+len(word) > width {
			b.WriteString(line + "\n")
			line, gap = "   ", "  "
		}
		line += gap + word
		gap = " "
	}
	b.WriteString(line + "\n")
}

func (r *Row) verdict() string {
	switch {
	case r.Error != "":
		return "failed"
	case r.Met == nil:
		return "-"
	case *r.Met:
		return "yes"
	default:
		return "NO"
	}
}

func (r *Row) spread() string {
	if r.Low == nil || r.High == nil || r.Samples < 2 {
		return "-"
	}
	text := fmt.Sprintf("%s to %s (%d)", number(r.Low), number(r.High), r.Samples)
	if r.Stalled > doubtful {
		text += fmt.Sprintf(", %.0f%% stalled", 100*r.Stalled)
	}
	return text
}

// doubtful is the share of stalls from which on a figure says more about the load of the machine than about us.
const doubtful = 0.1

// number shows three digits or more, and never an exponent.
func number(v *float64) string {
	if v == nil {
		return "-"
	}
	x := math.Abs(*v)
	switch {
	case x == 0:
		return "0"
	case x >= 100:
		return strconv.FormatFloat(*v, 'f', 0, 64)
	case x >= 10:
		return strconv.FormatFloat(*v, 'f', 1, 64)
	case x >= 0.1:
		return strconv.FormatFloat(*v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(*v, 'f', 4, 64)
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
