package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode lets only the agent's own user in: status tells who talks to whom.
const socketMode = 0o600

// ErrRunning means that another agent answers on a control socket.
var ErrRunning = errors.New("another agent is running")

// bind listens on the unix socket path. A socket file on which nobody listens
// is what a crash left, and is replaced; any other file stays.
func bind(path string) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, socketError(err)
	}
	unlock, err := lock(path)
	if err != nil {
		return nil, socketError(err)
	}
	defer unlock()
	if _, err := removeStale(path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: setMode}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, socketError(err)
	}
	listener := l.(*net.UnixListener)
	listener.SetUnlinkOnClose(false) // unlink looks first whose file it is
	return listener, nil
}

func socketError(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("control socket: %w: run as root, or set another path in control", err)
	}
	return fmt.Errorf("control socket: %w", err)
}

// Makeable returns why this process could not make a file at path, where it would make the
// directories that are missing, and the directory that keeps it from that.
func Makeable(path string) (dir string, err error) {
	for dir = filepath.Dir(path); ; dir = filepath.Dir(dir) {
		err = unix.Access(dir+"/.", unix.W_OK|unix.X_OK)
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir, err
		}
	}
}

// setMode sets the mode before the socket has a name (unix(7): the file takes
// the mode of the socket), so that there is no moment in which others get in.
func setMode(_, _ string, conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), socketMode) })
	return errors.Join(err, failed)
}

// lock keeps two starting agents from both finding the other's socket stale. It locks a file
// that only the agent's own user can open, and removes it at the end: whoever can open one,
// or the directory, could keep agents from starting.
func lock(path string) (unlock func(), err error) {
	path += ".lock"
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, socketMode)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		locked, err := f.Stat()
		if now, gone := os.Lstat(path); err == nil && gone == nil && os.SameFile(locked, now) {
			return func() { _ = os.Remove(path); f.Close() }, nil
		}
		f.Close() // removed by whoever had the lock before
	}
}

// RemoveStale removes the socket file that a crashed agent left. It reports
// whether there was one, and ErrRunning when an agent still answers on it.
func RemoveStale(path string) (removed bool, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	unlock, err := lock(path)
	if err != nil {
		return false, dialError(path, err)
	}
	defer unlock()
	return removeStale(path)
}

func removeStale(path string) (removed bool, err error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return false, fmt.Errorf("control socket: %s exists and is no socket: remove it or set another path in control", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return false, fmt.Errorf("%w: it answers on %s: stop it first, or set another path in control", ErrRunning, path)
	}
	if errors.Is(err, fs.ErrPermission) {
		return false, dialError(path, err)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		// Its queue may be full: somebody is there, though not answering.
		return false, fmt.Errorf("%w: %s is in use: stop it first, or set another path in control: %w", ErrRunning, path, err)
	}
	if err := os.Remove(path); err != nil {
		return false, socketError(err)
	}
	return true, nil
}

// unlink removes the socket file if it is still the one that info describes:
// a later agent may have put its own there.
func unlink(path string, info fs.FileInfo) {
	now, err := os.Lstat(path)
	if err == nil && info != nil && os.SameFile(now, info) {
		_ = os.Remove(path)
	}
}
