//go:build unix

package pgtest

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// signal sends a signal to the postmaster alone.
func (p *process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("pgtest: %w", err)
	}
	return nil
}

// signalAll sends a signal to the postmaster and to every process it has started.
func (p *process) signalAll(sig syscall.Signal) error {
	// Whoever is asked first cannot answer for the others, so the parent goes first: it
	// starts no further children.
	err := p.signal(sig)
	pids, childErr := children(p.cmd.Process.Pid)
	for _, pid := range pids {
		if killErr := syscall.Kill(pid, sig); killErr != nil && !errors.Is(killErr, syscall.ESRCH) {
			err = errors.Join(err, killErr)
		}
	}
	return errors.Join(err, childErr)
}

// Kill ends every process of the server at once, as a power cut would.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	pids, err := children(s.process.cmd.Process.Pid)
	if err != nil {
		return err
	}
	err = s.process.signalAll(syscall.SIGKILL)
	<-s.process.done
	s.process = nil
	// Shared memory belongs to the dead until the last of them has gone.
	gone := func() bool {
		for _, pid := range pids {
			if syscall.Kill(pid, 0) == nil {
				return false
			}
		}
		return true
	}
	return errors.Join(err, poll(stopTimeout, nil, gone))
}

// Shutdown ends the server in good order, cutting its connections, and keeps its data.
func (s *Server) Shutdown() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	// A frozen server could not hear that it is to end.
	err := errors.Join(s.process.signalAll(syscall.SIGCONT), s.process.signal(syscall.SIGINT))
	if pollErr := poll(stopTimeout, nil, func() bool {
		select {
		case <-s.process.done:
			return true
		default:
			return false
		}
	}); pollErr != nil {
		err = errors.Join(err, pollErr, s.process.signalAll(syscall.SIGKILL))
		<-s.process.done
	}
	s.process = nil
	return err
}

// Freeze stops every process of the server in its tracks: connections stay open and
// nothing answers. Thaw lets them go on.
func (s *Server) Freeze() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return errEnded
	}
	pid := s.process.cmd.Process.Pid
	err := s.process.signal(syscall.SIGSTOP)
	// Once the parent has stopped there is no new child; once all have, Freeze is done.
	err = errors.Join(err, poll(stopTimeout, s.process.done, func() bool { return stopped(pid) }))
	return errors.Join(err, poll(stopTimeout, s.process.done, func() bool {
		pids, childErr := children(pid)
		still := childErr == nil
		for _, child := range pids {
			if !stopped(child) {
				still = false
				_ = syscall.Kill(child, syscall.SIGSTOP) // it may have ended
			}
		}
		return still
	}))
}

// Thaw ends a Freeze.
func (s *Server) Thaw() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return errEnded
	}
	return s.process.signalAll(syscall.SIGCONT)
}
