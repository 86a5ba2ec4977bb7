package redisstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
)

// streamsJob is the environment variable that makes the program of these tests a process of streams: it says which ones.
const streamsJob = "THROTTLEKIT_TEST_STREAMS"

// streams are those of one process, which all debit the key "k".
type streams struct {
	URL, Prefix string
	Kind        string // "meter", "granted" or "ledger"
	Limit       float64
	Chunk       int64
	Batch       int64 // of grants
	Count       int
	TTL         time.Duration // of reservations; zero for the default
	Pause       time.Duration // between the debits of a stream
}

// year is a window that does not end while a test runs.
func year(limit float64) *budget.Budget {
	return &budget.Budget{Windows: []budget.Window{{Limit: limit, Width: 24 * 366 * time.Hour}}}
}

// meter meters tokens of one stream, and ends it.
type meter struct {
	debit func(tokens int64) (throttlekit.Decision, error)
	end   func() error
	begun int64 // tokens that were charged at once
}

// stream is the life of a process of streams: it says that it is ready, waits for a line, debits until
// its streams are refused, and prints how much each answer metered. It ends when its standard input does.
func stream(job string) error {
	var s streams
	if err := json.Unmarshal([]byte(job), &s); err != nil {
		return err
	}
	store, err := redisstore.Open(s.URL, redisstore.Config{Prefix: s.Prefix, Timeout: patient})
	if err != nil {
		return err
	}
	begin, finish, err := s.meters(store)
	if err != nil {
		return err
	}
	_, _ = os.Stdout.WriteString("ready\n")
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(1) // whoever wanted to know has gone
	}()
	errs := make([]error, s.Count)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = s.one(begin) })
	}
	all.Wait()
	return errors.Join(errors.Join(errs...), finish(), store.Close())
}

func (s *streams) one(begin func() (*meter, error)) error {
	m, err := begin()
	if err != nil || m == nil {
		return err
	}
	unit := strconv.FormatInt(s.Chunk, 10) + "\n"
	said := strconv.FormatInt(m.begun, 10) + "\n"
	for {
		if _, err := os.Stdout.WriteString(said); err != nil {
			return err
		}
		if s.Pause > 0 {
			<-time.After(s.Pause)
		}
		d, err := m.debit(s.Chunk)
		if err != nil || !d.Allowed {
			return errors.Join(err, m.end())
		}
		said = unit
	}
}

// meters returns how a stream begins, or that it may not, and what to do after the last one.
func (s *streams) meters(store throttlekit.Store) (begin func() (*meter, error), finish func() error, err error) {
	ctx, config := context.Background(), budget.Config{Store: store, Budget: year(s.Limit)}
	nothing := func() error { return nil }
	if s.Kind == "ledger" {
		l, err := budget.NewLedger(budget.LedgerConfig{Config: config, TTL: s.TTL})
		return func() (*meter, error) {
			lease, err := l.Admit(ctx, budget.Request{Key: "k", Input: 1, MaxOutput: 1}) // all are admitted, and go on
			if err != nil || !lease.Verdict().Allowed {
				return nil, err
			}
			return &meter{debit: func(n int64) (throttlekit.Decision, error) {
				v, err := lease.Debit(ctx, n)
				return v.Decision, err
			}, end: lease.Close, begun: 1}, nil
		}, nothing, err
	}
	m, err := budget.NewMeter(config)
	if err != nil || s.Kind == "meter" {
		return func() (*meter, error) {
			return &meter{debit: func(n int64) (throttlekit.Decision, error) { return m.Debit(ctx, "k", n) }, end: nothing}, nil
		}, nothing, err
	}
	g, err := budget.NewGranted(budget.GrantedConfig{Meter: m, Batch: s.Batch})
	return func() (*meter, error) {
		return &meter{debit: func(n int64) (throttlekit.Decision, error) { return g.Debit(ctx, "k", n) }, end: nothing}, nil
	}, func() error { return g.Close(ctx) }, err
}

// streamer is such a process.
type streamer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// start starts a process and waits until it is ready.
func (s *streams) start(t *testing.T) *streamer {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	job, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	p := &streamer{cmd: exec.CommandContext(t.Context(), program)}
	p.cmd.Env = append(os.Environ(), streamsJob+"="+string(job), "GORACE=atexit_sleep_ms=0")
	p.cmd.Stderr = os.Stderr
	out, outErr := p.cmd.StdoutPipe()
	in, inErr := p.cmd.StdinPipe()
	if err := errors.Join(outErr, inErr, p.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewScanner(out)
	if !p.out.Scan() || p.out.Text() != "ready" {
		t.Fatalf("a process of streams says %q", p.out.Text())
	}
	return p
}

func (p *streamer) begin(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		t.Fatal(err)
	}
}

// next is how much the next answer metered.
func (p *streamer) next(t *testing.T) (tokens int64, ok bool) {
	t.Helper()
	if !p.out.Scan() {
		return 0, false
	}
	tokens, err := strconv.ParseInt(p.out.Text(), 10, 64)
	if err != nil {
		t.Error(err)
	}
	return tokens, err == nil
}

// TestStreamsOfFourProcesses: all streams of four processes together meter no more than the budget and the last debit
// less one; with grants not one token beyond the budget. The store has counted what they say.
func TestStreamsOfFourProcesses(t *testing.T) {
	t.Parallel()
	const processes, perProcess, batch = 4, 125, 256
	// One token less than whole grants, and one more than whole chunks of 17: the last debit is beyond by all it can.
	limit := int64(87*batch - 1)
	if testing.Short() {
		limit = 19*batch - 1
	}
	for _, kind := range []string{"meter", "granted", "ledger"} {
		for _, chunk := range []int64{1, 17} {
			t.Run(fmt.Sprint(kind, " ", chunk), func(t *testing.T) {
				t.Parallel()
				s := &streams{URL: shared.URL(), Prefix: freshPrefix(), Kind: kind, Limit: float64(limit), Chunk: chunk, Batch: batch, Count: perProcess}
				if kind == "granted" {
					s.Pause = time.Millisecond // or one process is done before the next has begun
				}
				var all [processes]*streamer
				for i := range all {
					all[i] = s.start(t)
				}
				var each [processes]int64
				var reading sync.WaitGroup
				for i, p := range all {
					p.begin(t)
					reading.Go(func() {
						for tokens, ok := p.next(t); ok; tokens, ok = p.next(t) {
							each[i] += tokens
						}
					})
				}
				reading.Wait()
				metered := int64(0)
				for i, p := range all {
					metered += each[i]
					if err := p.cmd.Wait(); err != nil {
						t.Errorf("process %d: %v", i, err)
					}
				}
				most, least := limit+chunk-1, limit
				if kind == "granted" { // each process may be left with less than a chunk, which no stream can use
					most, least = limit, limit-processes*2*(chunk-1)
				}
				if metered > most || metered < least {
					t.Errorf("%d tokens were metered of %d", metered, limit)
				}
				conn := dial(t, shared)
				if used := usedOf(t, conn, s.Prefix+":k"); used != metered {
					t.Errorf("%d tokens were metered, and the store counts %d", metered, used)
				}
				if fields := do(t, conn, "HLEN", s.Prefix+":k"); fields != int64(2) {
					t.Errorf("%v fields are left, which are reservations but for two", fields)
				}
				t.Logf("%d of %d, by processes: %v", metered, limit, each)
			})
		}
	}
}

// TestKilledMidStream kills a process with streams under way: what it metered stays counted, and its
// reservations are gone at their TTL.
func TestKilledMidStream(t *testing.T) {
	t.Parallel()
	const ttl, chunk, count = 2 * time.Second, 3, 20
	prefix := freshPrefix()
	l := ledgerOn(t, open(t, shared.URL(), redisstore.Config{Prefix: prefix}), 1e9, ttl)
	s := &streams{
		URL: shared.URL(), Prefix: prefix, Kind: "ledger", Limit: 1e9, Chunk: chunk, Count: count, TTL: ttl, Pause: 5 * time.Millisecond,
	}
	p := s.start(t)
	p.begin(t)
	answered := int64(0)
	for range 20 * count {
		tokens, ok := p.next(t)
		if !ok {
			t.Fatal("it has ended by itself")
		}
		answered += tokens
	}
	if f, err := l.InFlight(t.Context(), "k"); err != nil || f.Requests != count {
		t.Errorf("while they stream there are %+v, %v", f, err)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for tokens, ok := p.next(t); ok; tokens, ok = p.next(t) {
		answered += tokens
	}
	_ = p.cmd.Wait() // it was killed
	conn := dial(t, shared)
	killed := millisOf(t, conn)
	f, err := l.InFlight(t.Context(), "k")
	if err != nil || f.Requests != count && millisOf(t, conn) < killed+ttl.Milliseconds()/2 {
		t.Errorf("right after the end there are %+v, %v", f, err)
	}
	dropped(t, conn, l, ttl, "k")
	if used := usedOf(t, conn, prefix+":k"); used < answered || used > answered+count*chunk {
		t.Errorf("%d tokens were metered, one debit of each stream may be on the way, and the store counts %d", answered, used)
	}
}
