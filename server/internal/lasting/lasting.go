// Package lasting writes answers that last for longer than other exchanges may.
package lasting

import (
	"net/http"
	"sync"
	"time"
)

// goodbye is how long a reader may take to read the end of its answer.
const goodbye = 500 * time.Millisecond

// Writer answers like the writer it wraps until it is told to last. From then on the server's deadlines, which are for exchanges
// that end, do not hold: each piece has one of its own, between pieces there is none, and once the answer should end the reader
// gets hardly any time, so that one that does not read holds no shutdown.
type Writer struct {
	http.ResponseWriter

	control  *http.ResponseController
	patience time.Duration
	ending   <-chan struct{}

	over    chan struct{} // nil until it lasts
	watched sync.WaitGroup

	mu     sync.Mutex // held while a deadline is chosen and set
	parted bool       // the last deadline is set
}

// New returns a writer whose reader may keep a piece of a lasting answer waiting for patience, and which should end when ending is
// closed.
func New(w http.ResponseWriter, patience time.Duration, ending <-chan struct{}) *Writer {
	return &Writer{ResponseWriter: w, control: http.NewResponseController(w), patience: patience, ending: ending}
}

// Last makes the answer last. The request must have been read, its body included. A second call does nothing.
func (w *Writer) Last() {
	if w.over != nil {
		return
	}
	w.over = make(chan struct{})
	_ = w.control.SetReadDeadline(time.Time{}) // without deadlines, as in a test, there are none to lift
	w.allow(0)
	w.watched.Go(func() {
		select {
		case <-w.ending:
			w.allow(0) // a write that the reader holds up ends
		case <-w.over:
		}
	})
}

// Close must be called before the handler returns: after that, nothing may touch what the writer wraps. What the server has yet to
// send is one more piece.
func (w *Writer) Close() {
	if w.over != nil {
		close(w.over)
		w.watched.Wait()
		w.allow(w.patience)
	}
}

// allow gives the reader time from now on, or as much as it likes if that is 0.
func (w *Writer) allow(limit time.Duration) {
	if w.over == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.parted {
		return
	}
	select {
	case <-w.ending:
		w.parted = true
		limit = goodbye
	default:
	}
	var until time.Time
	if limit > 0 {
		until = time.Now().Add(limit)
	}
	_ = w.control.SetWriteDeadline(until)
}

// Write implements [http.ResponseWriter].
func (w *Writer) Write(p []byte) (int, error) {
	w.allow(w.patience)
	return w.ResponseWriter.Write(p)
}

// FlushError is for [http.ResponseController]. What comes next may take its time.
func (w *Writer) FlushError() error {
	w.allow(w.patience)
	err := w.control.Flush()
	w.allow(0)
	return err
}

// Flush implements [http.Flusher].
func (w *Writer) Flush() { _ = w.FlushError() } // the next write fails, too, and tells

// Unwrap is for [http.ResponseController].
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
