package concurrency

import (
	"fmt"
	"sync"
)

// voice calls functions of the program's, in a goroutine that lives while there is something to say.
// What comes while one of them runs waits, of each kind the latest.
type voice struct {
	onError func(error) // nil for none

	mu       sync.Mutex
	speaking bool
	fence    func() // to call, nil for none
	err      error  // to tell, nil for none
}

// say has fence called, or onError with err, soon.
func (v *voice) say(fence func(), err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if fence != nil {
		v.fence = fence
	}
	if err != nil && v.onError != nil {
		v.err = err
	}
	if v.speaking || v.fence == nil && v.err == nil {
		return
	}
	v.speaking = true
	go v.speak()
}

func (v *voice) speak() {
	for {
		v.mu.Lock()
		fence, err := v.fence, v.err
		v.fence, v.err = nil, nil
		v.speaking = fence != nil || err != nil
		v.mu.Unlock()
		switch {
		case fence == nil && err == nil:
			return
		case fence != nil: // first, since it may be what stops work
			v.call("OnFence", fence)
		}
		if err != nil {
			v.call("OnError", func() { v.onError(err) })
		}
	}
}

// call calls a function of the program's, whose panic would end the process.
func (v *voice) call(name string, function func()) {
	defer func() {
		if cause := recover(); cause != nil && name != "OnError" {
			v.say(nil, fmt.Errorf("concurrency: %s panicked: %v", name, cause))
		}
	}()
	function()
}
