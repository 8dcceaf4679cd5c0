package cli

import (
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// unread is a log that perhaps nobody reads: a pipe to a pager that waits, a terminal that
// is held (Ctrl-S), a journal that hangs. All loops of an agent log, and connections, the
// control socket and the stop would stand still with them. Lines that find no room in time
// are lost, and counted in the next that does.
type unread struct {
	file *os.File
	note func(lines int) []byte // the line that tells of lost ones; nil: none does

	mu   sync.Mutex
	lost int // lines, since the last that was taken
}

// unreadPatience is how long a line waits for room: a reader is slow for a moment. One that
// has let a line go has no more of it until it takes one.
const unreadPatience = 100 * time.Millisecond

// unreadPiece is what a pipe takes at once where it has room at all.
const unreadPiece = 4096

// Write takes a line, always as if it was written.
func (u *unread) Write(line []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	patience := unreadPatience
	if u.lost > 0 {
		patience = 0
	}
	if !u.room(patience) {
		u.lost++
		return len(line), nil
	}
	if n := u.lost; n > 0 && u.note != nil {
		u.lost = 0
		u.put(u.note(n))
	}
	u.lost = 0
	u.put(line)
	return len(line), nil
}

// put writes what there is room for.
func (u *unread) put(line []byte) {
	for len(line) > 0 && u.room(unreadPatience) {
		piece := line[:min(len(line), unreadPiece)]
		if _, err := u.file.Write(piece); err != nil {
			return // a full disk, a reader that is gone: nothing else can be told of it
		}
		line = line[len(piece):]
	}
}

// room tells whether something can be written without waiting, once patience is over. It
// is so, too, of what can only fail.
func (u *unread) room(patience time.Duration) bool {
	conn, err := u.file.SyscallConn()
	if err != nil {
		return true
	}
	n := 0
	err = conn.Control(func(fd uintptr) {
		for end := time.Now().Add(patience); ; patience = time.Until(end) {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			if n, err = unix.Poll(poll, int(max(patience, 0).Milliseconds())); err != unix.EINTR {
				return
			}
		}
	})
	return n != 0 || err != nil
}

// Stat is the file's.
func (u *unread) Stat() (fs.FileInfo, error) { return u.file.Stat() }
