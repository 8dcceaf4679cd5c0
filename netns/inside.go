package netns

import (
	"fmt"
	"runtime"
	"unsafe"

	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inside runs f on a thread in namespace ns and returns f's error. Sockets,
// sysctl files and child processes of f belong to ns. The caller's thread is
// not touched.
func inside(ns nsh.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go visit(ns, f, done)
	return <-done
}

// insideFresh is inside with a new namespace that nothing else holds: it is
// gone when f has returned and closed its sockets.
func insideFresh(f func() error) error {
	home, err := nsh.Get()
	if err != nil {
		return fmt.Errorf("open this thread's network namespace: %w", err)
	}
	defer home.Close()
	return inside(home, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("create a network namespace: %w", err)
		}
		return f()
	})
}

// visit leaves its thread locked when the way back fails: the runtime then
// ends the thread with the goroutine instead of giving it to another one.
func visit(ns nsh.NsHandle, f func() error, done chan<- error) {
	runtime.LockOSThread()
	home, err := nsh.Get()
	if err != nil {
		runtime.UnlockOSThread()
		done <- fmt.Errorf("open this thread's network namespace: %w", err)
		return
	}
	defer home.Close()
	if err := nsh.Set(ns); err != nil {
		runtime.UnlockOSThread()
		done <- fmt.Errorf("enter the network namespace: %w", err)
		return
	}
	restore := deafen()
	err = f()
	if restore() == nil && nsh.Set(home) == nil {
		runtime.UnlockOSThread()
	}
	done <- err
}

// deafen keeps the signals that end an agent from the thread, and so from the
// programs that it starts: Ctrl-C reaches all processes of the terminal, a service
// manager's SIGTERM all of the service, and a step, or its undoing, would fail
// half-way. The process hears them on its other threads.
func deafen() (restore func() error) {
	var set, was unix.Sigset_t
	for _, s := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		bits := 8 * int(unsafe.Sizeof(set.Val[0]))
		set.Val[(int(s)-1)/bits] |= 1 << ((int(s) - 1) % bits)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, &was); err != nil {
		return func() error { return nil }
	}
	return func() error { return unix.PthreadSigmask(unix.SIG_SETMASK, &was, nil) }
}
