package admin

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLockedByAnybody: who may read the directory of the socket, as every user of the host
// may, does not keep an agent from starting, nor cleanup from removing what is stale, by
// locking the directory.
func TestLockedByAnybody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	crash(t, path)
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := RemoveStale(path)
		s := &Server{Path: path, Source: sample}
		if err == nil {
			err = s.Listen()
		}
		s.Close()
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("waits for a lock that any user may hold")
	}
	if left, err := os.ReadDir(dir.Name()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
