package report

import (
	"encoding/json"
	"os"
	"time"
)

// Document is one run.
type Document struct {
	At      time.Time `json:"at"`
	Took    string    `json:"took"`
	Machine Machine   `json:"machine"`
	Rows    []Row     `json:"rows"`
}

// WriteFile writes the document as JSON.
func (d Document) WriteFile(path string) error {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644) //nolint:gosec // meant to be read by others
}

// Tally counts the rows with a target: how many meet it, how many miss it, and how many rows have no figure.
func (d Document) Tally() (met, missed, failed int) {
	for i := range d.Rows {
		switch r := &d.Rows[i]; {
		case r.Error != "":
			failed++
		case r.Met == nil:
		case *r.Met:
			met++
		default:
			missed++
		}
	}
	return met, missed, failed
}
