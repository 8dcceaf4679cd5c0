package cli

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCheckFindsNoPlaceForTheSocket: any user may run a relay, but not with the usual socket.
func TestCheckFindsNoPlaceForTheSocket(t *testing.T) {
	b := newBench(t)
	want := func(code int, what string) {
		t.Helper()
		got := b.do("check", "-c", "CONFIG")
		if what = strings.ReplaceAll(what, "DIR", b.dir); got != code || !strings.Contains(b.out.String(), what) {
			t.Errorf("exit code %d, want %d; stdout lacks %q:\n%s", got, code, what, &b.out)
		}
	}
	want(exitOK, "ok    control socket DIR/edge.sock is free\n")
	if err := os.Chmod(b.dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // for whom modes count only if the process was started by another
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		realUser(t, 65534)
		defer realUser(t, 0)
	}
	want(exitFailure, "fail  control socket: DIR/edge.sock cannot be made in DIR: permission denied\n      remedy: run as root, or set another path in control\n")
}

// realUser changes the thread's real user alone.
func realUser(t *testing.T, uid int) {
	t.Helper()
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), ^uintptr(0), ^uintptr(0)); errno != 0 {
		t.Fatal(errno)
	}
}
