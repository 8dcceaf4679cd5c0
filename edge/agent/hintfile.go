package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// hintEvery is how often the file of hints is looked at: a stat, no more, while
// nothing is new.
const hintEvery = 100 * time.Millisecond

// watchHints takes in what other programs write to the file of hints, if there is one, until
// ctx ends. A mistake in it is logged, once, and costs its line.
func (a *agent) watchHints(ctx context.Context) error {
	tail := hintTail{}
	defer func() { tail.close() }()
	tick := time.NewTicker(hintEvery)
	defer tick.Stop()
	last := ""
	for {
		if file := *a.hints.Load(); file != tail.path {
			tail.close()
			tail, last = hintTail{path: file}, ""
		}
		looks := tick.C
		if tail.path == "" {
			looks = nil
		}
		lines, at, err := tail.read(time.Now())
		for _, line := range lines {
			if _, bad := a.hint(line, at); bad != nil {
				err = bad
			}
		}
		if err != nil && err.Error() != last {
			last = err.Error()
			a.log.Warn("hints", "file", tail.path, "reason", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.rehint:
		case <-looks:
		}
	}
}

// errNoHints is what is wrong with a directory, a device or a pipe in the place of the file.
var errNoHints = errors.New("not a file: give a file that programs append to or replace")

// hintTail reads the lines that are added to a file, or those of the file that
// has taken its place. It keeps the file open, so that no other one can have its
// inode.
type hintTail struct {
	path   string
	file   *os.File  // nil: none
	mod    time.Time // of file, when it was last read
	offset int64     // of what was not read
	last   []byte    // what stands before offset, hintLine of it at most
}

// Bounds of what is read at once, and of one line.
const (
	hintMost = 256 << 10
	hintLine = 4 << 10
)

// read returns the complete lines that are new, and when they were written. A
// missing file has none.
func (t *hintTail) read(now time.Time) (lines [][]byte, at time.Time, err error) {
	if t.path == "" {
		return nil, now, nil
	}
	st, err := os.Stat(t.path)
	if err != nil {
		t.close()
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, now, err
	}
	if !st.Mode().IsRegular() {
		t.close()
		return nil, now, errNoHints
	}
	fresh, err := t.follow(st)
	if err != nil {
		return nil, now, err
	}
	if at = now; fresh && st.ModTime().Before(now) {
		at = now.Add(st.ModTime().Sub(now)) // with now's monotonic clock: the other may be set while the hint holds
	}
	if t.mod = st.ModTime(); st.Size() == t.offset {
		return nil, at, nil
	}
	lines, err = t.next()
	return lines, at, err
}

// follow makes sure that the file that is at the path now is open, and reports
// whether what it holds must be read from the start.
func (t *hintTail) follow(now fs.FileInfo) (fresh bool, err error) {
	if t.file != nil {
		if was, err := t.file.Stat(); err != nil || !os.SameFile(now, was) {
			t.close()
		}
	}
	if t.file == nil {
		t.file, err = os.OpenFile(t.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		t.offset = 0
		return true, err
	}
	if now.Size() < t.offset || now.Size() == t.offset && !now.ModTime().Equal(t.mod) || now.Size() > t.offset && t.another() {
		t.offset = 0 // written anew
		return true, nil
	}
	return false, nil
}

// another reports that what was read last is not there any more: a shell's > writes into the
// same file, and what it writes may be longer than what stood there.
func (t *hintTail) another() bool {
	if t.offset == 0 {
		return false
	}
	last := make([]byte, len(t.last))
	_, err := t.file.ReadAt(last, t.offset-int64(len(last)))
	return err != nil || !bytes.Equal(last, t.last)
}

// next reads what is new, at most hintMost, and returns its complete lines.
func (t *hintTail) next() (lines [][]byte, err error) {
	text, err := io.ReadAll(io.NewSectionReader(t.file, t.offset, hintMost))
	end := bytes.LastIndexByte(text, '\n') + 1
	endless := end == 0 && len(text) > hintLine
	if endless {
		end = len(text)
	}
	if end > 0 {
		if t.offset == 0 {
			t.last = nil
		}
		t.offset, t.last = t.offset+int64(end), append(t.last, text[:end]...)
		t.last = bytes.Clone(t.last[max(len(t.last)-hintLine, 0):])
	}
	if endless {
		return nil, fmt.Errorf("a line of more than %d bytes", hintLine)
	}
	for line := range bytes.Lines(text[:end]) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, line)
		}
	}
	return lines, err
}

func (t *hintTail) close() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}
