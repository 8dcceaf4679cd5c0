package emu

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// waiter sleeps with nanosecond timeouts, which Go's own timers do not offer, and is
// woken by arrivals or by poke.
type waiter struct {
	fds []unix.PollFd // of the pump; the first is the eventfd

	mu   sync.Mutex // so that no poke writes to a descriptor that is closed
	wake int        // eventfd, negative when closed
}

func (w *waiter) open(ports []int) error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	w.mu.Lock()
	w.wake = fd
	w.mu.Unlock()
	w.fds = []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for _, p := range ports {
		w.fds = append(w.fds, unix.PollFd{Fd: int32(p), Events: unix.POLLIN})
	}
	return nil
}

// poke ends a present or the next wait. Any goroutine may call it at any time.
func (w *waiter) poke() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wake < 0 {
		return
	}
	one := [8]byte{0: 1}
	unix.Write(w.wake, one[:]) // full means that a poke is pending already
}

func (w *waiter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wake >= 0 {
		unix.Close(w.wake)
	}
	w.wake = -1
}

// wait sleeps for nap (negative: without end) or until a poke; arrivals end it too if
// the caller asks for it.
func (w *waiter) wait(nap time.Duration, arrivals bool) error {
	fds := w.fds
	if !arrivals {
		fds = fds[:1]
	}
	var timeout *unix.Timespec
	if nap >= 0 {
		ts := unix.NsecToTimespec(int64(nap))
		timeout = &ts
	}
	n, err := unix.Ppoll(fds, timeout, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("ppoll: %w", err)
	}
	if n > 0 && fds[0].Revents != 0 {
		var b [8]byte
		unix.Read(int(fds[0].Fd), b[:])
	}
	return nil
}

// becomePump locks the OS thread and asks for exact timers. The result undoes it.
func becomePump() (restore func()) {
	runtime.LockOSThread()
	old, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	return func() {
		unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(old), 0, 0, 0)
		runtime.UnlockOSThread()
	}
}
