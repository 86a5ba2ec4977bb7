package concurrency

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// TestBeforeTheFirstAnswer holds the first beat up.
func TestBeforeTheFirstAnswer(t *testing.T) {
	t.Parallel()
	for outage, want := range map[Outage]int{FailClosed: 0, LocalOnly: 4} {
		t.Run(string(outage), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				a := join(t, newBubbleStore(t), "a", 4, func(c *FleetConfig) {
					c.Outage = outage
					c.Store.(*line).way = takes(300*ms, 300*ms)
				})
				if got := a.Stats(); got.Share != want || got.Fenced || got.Nodes != 0 {
					t.Errorf("%+v", got)
				}
				end(take(t, a, want))
				var served atomic.Int64
				for range 2 {
					go func() {
						if p, err := a.Acquire(t.Context()); err == nil && p.Allowed {
							served.Add(1)
							p.Release()
						}
					}()
				}
				after(start, 599*ms)
				if want == 0 && served.Load() != 0 {
					t.Error("somebody was served before the answer")
				}
				after(start, 601*ms)
				if n := served.Load(); n != 2 {
					t.Errorf("%d were served after the answer", n)
				}
				end(take(t, a, 4))
			})
		})
	}
}

// TestFence follows a node that is cut off: when it stops, what it says, who waits, how it comes back.
func TestFence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBubbleStore(t)
		var fences notes[time.Duration]
		start := time.Now()
		a := join(t, store, "a", 8, func(c *FleetConfig) { c.OnFence = func() { fences.add(time.Since(start)) } })
		b := join(t, store, "b", 8, func(c *FleetConfig) { c.Heartbeat, c.TTL = 100*ms, 2*time.Second })
		a.step(t)
		a.line.set(errDown, nil)
		after(start, 1496*ms)
		end(take(t, a, 4))
		if got := b.Stats().Share; got != 4 {
			t.Errorf("b has %d while a is alive", got)
		}
		after(start, 1497*ms) // 2s, less 0.1 % and 1ms, less half a second
		if p := a.TryAcquire(); p.Allowed || p.Limit != 0 {
			t.Errorf("%+v of a guard that is fenced", p)
		}
		if got := a.Stats(); !got.Fenced || !slices.Equal(fences.read(), []time.Duration{1497 * ms}) {
			t.Errorf("%+v, fenced at %v", got, fences.read())
		}
		var served atomic.Int64
		go func() {
			if p, err := a.Acquire(t.Context()); err == nil && p.Allowed {
				served.Store(int64(time.Since(start)))
			}
		}()
		for b.Stats().Share < 8 {
			<-time.After(ms)
		}
		if at := time.Since(start); at < 2*time.Second || at > 2200*ms {
			t.Errorf("b has all after %v", at)
		}
		after(start, 10*time.Second)
		if served.Load() != 0 || len(fences.read()) != 1 || !a.Stats().Fenced {
			t.Errorf("served after %v, fenced at %v", served.Load(), fences.read())
		}
		a.line.set(nil, nil)
		after(start, 12*time.Second)
		if served.Load() < int64(10*time.Second) || a.Stats().Fenced {
			t.Errorf("served after %v, %+v", served.Load(), a.Stats())
		}
		take(t, a, 3)
		a.line.set(errDown, nil)
		a.guard.mu.Lock()
		until := time.Since(start) + a.guard.part.until - a.guard.elapsed()
		a.guard.mu.Unlock()
		after(start, 20*time.Second)
		if want := []time.Duration{1497 * ms, until}; !slices.Equal(fences.read(), want) {
			t.Errorf("fenced at %v, want %v", fences.read(), want)
		}
	})
}

// TestFenceCountsFromWhenABeatIsSent has answers that take long, and one that comes after the fence.
func TestFenceCountsFromWhenABeatIsSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var fences atomic.Int64
		a := join(t, newBubbleStore(t), "a", 4, func(c *FleetConfig) {
			c.Heartbeat, c.TTL, c.FenceMargin = 900*ms, time.Second, 90*ms // the fence is 908ms after a beat is sent
			c.Store.(*line).way = takes(0, 300*ms)
			c.OnFence = func() { fences.Add(1) }
		})
		after(start, 301*ms)
		end(take(t, a, 4))
		after(start, 907*ms) // a second beat is under way
		end(take(t, a, 4))
		after(start, 908*ms)
		take(t, a, 0)
		after(start, 1201*ms)
		end(take(t, a, 4))
		if n := fences.Load(); n != 1 {
			t.Errorf("fenced %d times", n)
		}
		a.line.set(nil, takes(0, 899*ms))
		after(start, 1900*ms) // fenced since 1808
		fences.Store(0)
		a.line.set(nil, takes(0, 950*ms)) // no answer in time
		for time.Since(start) < 10*time.Second {
			after(start, time.Since(start)+ms)
			if got := a.Stats(); time.Since(start) > 2708*ms && (!got.Fenced || a.TryAcquire().Allowed) {
				t.Fatalf("%+v after %v", got, time.Since(start))
			}
		}
		if n := fences.Load(); n != 1 {
			t.Errorf("fenced %d times", n)
		}
	})
}

// TestAnAnswerAfterTheFence is adopted, and does not lift it.
func TestAnAnswerAfterTheFence(t *testing.T) {
	t.Parallel()
	told := make(chan struct{}, 10)
	clock := &watch{now: time.Hour}
	f := &FleetGuard{guard: newTestGuard(t, Config{Elapsed: clock.elapsed}), lasts: time.Second}
	f.config.Outage, f.config.OnFence = FailClosed, func() { told <- struct{}{} }
	adopt := func(sent time.Duration, slots int) {
		f.adopt(Report{}, sent, Share{Slots: slots, Ceiling: 9, Nodes: 1})
	}
	adopt(clock.now, 1)
	f.watching.Stop() // this clock is moved by hand
	clock.now += time.Second
	f.fence()
	f.fence()
	adopt(clock.now-time.Second, 2)
	f.watching.Stop()
	f.fence()
	<-told
	if got := f.Stats(); !got.Fenced || got.Share != 2 || len(told) > 0 {
		t.Errorf("%+v, and told of it again", got)
	}
	adopt(clock.now-time.Second+1, 3)
	f.watching.Stop()
	if got := f.Stats(); got.Fenced || f.TryAcquire().Limit != 3 {
		t.Errorf("%+v", got)
	}
	clock.now += 2
	f.fence()
	<-told
	if got := f.Stats(); !got.Fenced || len(told) > 0 {
		t.Errorf("%+v, and told of it again", got)
	}
}

// TestWhoWasHeldUp reads the clock, is held up, and comes back after the guard has fenced itself.
func TestWhoWasHeldUp(t *testing.T) {
	t.Parallel()
	clock := &watch{}
	f := &FleetGuard{guard: newTestGuard(t, Config{Elapsed: clock.elapsed}), lasts: time.Second}
	f.config.Outage = FailClosed
	f.adopt(Report{}, 0, Share{Slots: 4, Ceiling: 4, Nodes: 1})
	f.watching.Stop()
	before := clock.now
	clock.now = time.Hour
	f.fence()
	var p Permit
	f.guard.try(&p, before)
	if p.Allowed {
		t.Error("admitted by a clock that was read long ago")
	}
}

// TestABeatThatFails is what each mode makes of it.
func TestABeatThatFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change            func(*FleetConfig)
		atOnce, afterward int // permits
	}{
		"fail-closed":           {func(*FleetConfig) {}, 5, 0},
		"fail-closed, no fence": {func(c *FleetConfig) { c.NoFence = true }, 0, 0},
		"local-only":            {func(c *FleetConfig) { c.Outage = LocalOnly }, 10, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				store := newBubbleStore(t)
				var errs notes[error]
				a := join(t, store, "a", 10, func(config *FleetConfig) {
					c.change(config)
					config.OnError = errs.add
				})
				b := join(t, store, "b", 10, nil)
				a.step(t)
				b.step(t)
				a.line.set(errDown, nil)
				held, served := take(t, a, 5), false
				wait(t.Context(), a.guard, Normal, func(p Permit, err error) {
					served = p.Allowed && err == nil
					p.Cancel()
				})
				if err := a.Beat(t.Context()); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
					t.Errorf("%v", err)
				}
				synctest.Wait()
				if served != (c.atOnce > 5) {
					t.Errorf("who waits was served: %v", served)
				}
				end(held)
				synctest.Wait()
				end(take(t, a, c.atOnce))
				if all := errs.read(); len(all) != 1 || !errors.Is(all[0], errDown) {
					t.Errorf("%v", all)
				}
				after(start, 5*time.Second)
				end(take(t, a, c.afterward))
				b.step(t)
				a.line.set(nil, nil)
				a.step(t) // b has all
				b.step(t)
				a.step(t)
				synctest.Wait()
				end(take(t, a, 5))
			})
		})
	}
}

// TestABeatThatIsAbandoned by who asked for it is repeated, and is no outage.
func TestABeatThatIsAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		store := newBubbleStore(t)
		join(t, store, "b", 6, nil)
		a := join(t, store, "a", 6, func(c *FleetConfig) { c.Outage = LocalOnly })
		after(start, 2500*ms)
		if got := a.Stats().Share; got != 3 {
			t.Fatalf("%d slots", got)
		}
		a.line.set(nil, takes(time.Second, 0))
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		if err := a.Beat(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("%v", err)
		}
		if err := a.Beat(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v of a context that has ended", err)
		}
		if got := a.Stats().Share; got != 3 {
			t.Errorf("%d slots after a beat was abandoned", got)
		}
		after(start, 2551*ms)
		if got := a.line.count(); got != 5 {
			t.Errorf("%d beats: it was not repeated", got)
		}
	})
}

// TestRepetition is when beats are sent while they fail.
func TestRepetition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		a := join(t, newBubbleStore(t), "a", 10, nil)
		after(start, 1500*ms)
		a.line.set(errDown, nil)
		after(start, 6*time.Second)
		a.line.set(nil, nil)
		after(start, 9*time.Second)
		var got []time.Duration
		for _, beat := range a.line.counts().beats {
			got = append(got, beat.Sub(start)/ms)
		}
		want := []time.Duration{0, 1000, 2000, 2100, 2300, 2700, 3500, 4500, 5500, 6500, 7500, 8500}
		if !slices.Equal(got, want) {
			t.Errorf("beats at %v, want %v", got, want)
		}
	})
}

// TestASilentStore is given up after the timeout, and is never asked twice at once.
func TestASilentStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var errs notes[error]
		a := join(t, newBubbleStore(t), "a", 10, func(c *FleetConfig) {
			c.Timeout = 400 * ms
			c.Eager = true
			c.OnError = errs.add
		})
		a.line.set(nil, takes(time.Hour, 0))
		for i := range 3 {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*200*ms)
				defer cancel()
				if err := a.Beat(ctx); err == nil || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
			}()
		}
		after(start, 5*time.Second)
		if most := a.line.counts().most; most != 1 {
			t.Errorf("%d beats under way at once", most)
		}
		if all := errs.read(); len(all) < 5 || !errors.Is(all[3], throttlekit.ErrStoreUnavailable) {
			t.Errorf("%v", all)
		}
		began := time.Now()
		if err := a.Close(); err == nil || time.Since(began) > 800*ms {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestPanicsOfThePrograms functions end neither the beats nor the guard.
func TestPanicsOfThePrograms(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var errs notes[string]
		a := join(t, newBubbleStore(t), "a", 4, func(c *FleetConfig) {
			c.OnFence = func() { panic("fence") }
			c.OnError = func(err error) {
				errs.add(err.Error())
				panic("error")
			}
		})
		a.line.set(errDown, nil)
		after(start, 3*time.Second)
		a.line.set(nil, nil)
		after(start, 5*time.Second)
		end(take(t, a, 4))
		if all := errs.read(); !slices.Contains(all, "concurrency: OnFence panicked: fence") || len(all) < 3 {
			t.Errorf("%q", all)
		}
	})
}

// TestAFenceOnASlowClock comes when that clock says so.
func TestAFenceOnASlowClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var fences notes[time.Duration]
		a := join(t, newBubbleStore(t), "a", 6, func(c *FleetConfig) {
			c.Local.Elapsed = func() time.Duration { return time.Since(start) / 2 }
			c.OnFence = func() { fences.add(time.Since(start)) }
		})
		a.line.set(nil, takes(0, time.Hour))
		after(start, 5*time.Second)
		if got := fences.read(); !slices.Equal(got, []time.Duration{2 * 1497 * ms}) {
			t.Errorf("fenced at %v", got)
		}
	})
}

// TestFunctionsThatTakeTheirTime keep nothing waiting: neither beats, nor the fence, nor Close.
func TestFunctionsThatTakeTheirTime(t *testing.T) {
	t.Parallel()
	v := voice{}
	let, order := make(chan struct{}), make(chan string, 10)
	v.onError = func(err error) {
		order <- err.Error()
		<-let
	}
	v.say(nil, errors.New("first"))
	if got := <-order; got != "first" {
		t.Fatalf("told of %s", got)
	}
	for _, text := range []string{"second", "third"} {
		v.say(nil, errors.New(text))
	}
	v.say(func() { order <- "fence"; panic("oops") }, nil)
	close(let)
	for _, want := range []string{"fence", "third", "concurrency: OnFence panicked: oops"} {
		if got := <-order; got != want {
			t.Errorf("told of %s, want %s", got, want)
		}
	}
}
