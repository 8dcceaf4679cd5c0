package netns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// journal is the list of undo entries of one virtual host, kept in
// RunDir/NAMESPACE.undo: a header line, then one JSON object per line. Its
// owner holds a lock (flock) on the file, which the kernel drops when the owner
// dies, and the commands that it runs with it; so a journal that can be locked belongs to
// nobody alive.
type journal struct {
	file    *os.File
	path    string
	entries []entry
}

// header names the owner. Boot tells journals of an earlier boot, whose
// entries have gone with the kernel they were made in.
type header struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // process start time in ticks since boot, /proc/PID/stat field 22
	Boot  string `json:"boot"`
	Net   string `json:"net"` // the network namespace that was worked on
	Role  string `json:"role"`
}

func journalPath(runDir, space string) string {
	return filepath.Join(runDir, space+".undo")
}

// Who holds the lock and is no owner does so for a moment: check looks at what is
// there, cleanup removes it, an agent that starts has yet to write its name.
const (
	lockPatience = 2 * time.Second
	lockPause    = 10 * time.Millisecond
)

// journalMode lets root alone open a journal: whoever can read a file can lock it, and with
// it keep agents from starting, and cleanup from undoing anything.
const journalMode = 0o600

// openJournal locks the journal and reads what an earlier owner left in it.
// Without create a missing journal gives nil. An owner that runs is an error at
// once, anybody else's lock after lockPatience.
func openJournal(runDir, space string, create bool) (*journal, error) {
	path := journalPath(runDir, space)
	flags := os.O_RDWR | os.O_APPEND
	if create {
		if err := os.MkdirAll(runDir, 0o755); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		flags |= os.O_CREATE
	}
	for giveUp := time.Now().Add(lockPatience); ; {
		f, err := os.OpenFile(path, flags, journalMode)
		if errors.Is(err, os.ErrNotExist) && !create {
			return nil, nil
		}
		if err == nil {
			err = regular(f)
		}
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if err := lockJournal(f); err != nil {
			owned, err := lockedError(f, space, err)
			f.Close()
			if owned || time.Now().After(giveUp) {
				return nil, err
			}
			time.Sleep(lockPause)
			continue
		}
		if !sameFile(f, path) { // removed by its owner between open and lock
			f.Close()
			continue
		}
		j := &journal{file: f, path: path}
		if err := j.load(); err != nil {
			f.Close()
			return nil, err
		}
		return j, nil
	}
}

// journalMost is more than any journal has, in bytes.
const journalMost = 16 << 20

// regular closes what cannot be a journal, and would be read without end.
func regular(f *os.File) error {
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("is no file")}
	case info.Size() > journalMost:
		err = &fs.PathError{Op: "read", Path: f.Name(), Err: fmt.Errorf("has %d bytes, which no journal has", info.Size())}
	}
	if err != nil {
		f.Close()
	}
	return err
}

// lockJournal makes f this process's. The iptables commands that it runs share the lock: one
// that outlives its killed agent, as it waits for another's rules, changes the host before
// somebody can look what there is to undo, and not after.
func lockJournal(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0) // they inherit it
	return err
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// inUse is the error that a process which runs holds the journal.
type inUse struct{ error }

// lockedError says who holds the lock that could not be had, and whether waiting
// for it is of no use.
func lockedError(f *os.File, space string, err error) (final bool, _ error) {
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return true, fmt.Errorf("journal %s: lock: %w", f.Name(), err)
	}
	data := make([]byte, 4096)
	n, _ := f.ReadAt(data, 0)
	line, _, _ := bytes.Cut(data[:n], []byte("\n"))
	var h header
	if json.Unmarshal(line, &h) != nil || h.Start == "" || h.Start != startTime(h.PID) {
		return false, inUse{fmt.Errorf("namespace %s is in use by a process that holds %s: stop it first", space, f.Name())}
	}
	return true, inUse{fmt.Errorf("namespace %s is in use by the running hawser-%s with pid %d: stop it first", space, h.Role, h.PID)}
}

// load reads the entries of a dead owner. A line that does not parse can only
// be the last one, cut by a crash before its step ran; it is left out. So are
// entries made in another network namespace: applied here they would do harm.
func (j *journal) load() error {
	data, err := os.ReadFile(j.path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	first, rest, _ := bytes.Cut(data, []byte("\n"))
	var h header
	if json.Unmarshal(first, &h) != nil || h.Boot != BootID() {
		return nil
	}
	here := networkID()
	for line := range bytes.SplitSeq(rest, []byte("\n")) {
		var e entry
		if json.Unmarshal(line, &e) != nil || e.Do == "" {
			continue
		}
		if h.Net == here || e.Do == undoSpace {
			j.entries = append(j.entries, e)
		}
	}
	return nil
}

// begin empties the journal and makes this process its owner.
func (j *journal) begin(role string) error {
	if err := j.file.Truncate(0); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.entries = nil
	pid := os.Getpid()
	return j.line(header{PID: pid, Start: startTime(pid), Boot: BootID(), Net: networkID(), Role: role})
}

// record writes e; only afterwards may the step be taken.
func (j *journal) record(e entry) error {
	if err := j.line(e); err != nil {
		return err
	}
	j.entries = append(j.entries, e)
	return nil
}

func (j *journal) line(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	info, err := j.file.Stat()
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if _, err := j.file.Write(append(data, '\n')); err != nil {
		// What a full disk has taken would make one line with the next entry.
		return errors.Join(fmt.Errorf("journal: %w", err), j.file.Truncate(info.Size()))
	}
	return nil
}

// rewind undoes all entries, the newest first. Entries that fail stay, so that
// a later call can try again.
func (j *journal) rewind(u *undoer) (done []string, err error) {
	var failed []entry
	var errs []error
	for i := len(j.entries) - 1; i >= 0; i-- {
		what, err := u.undo(j.entries[i])
		if err != nil {
			failed = append([]entry{j.entries[i]}, failed...)
			if same := func(o error) bool { return o.Error() == err.Error() }; !slices.ContainsFunc(errs, same) {
				errs = append(errs, err)
			}
		} else if what != "" {
			done = append(done, what)
		}
	}
	j.entries = failed
	return done, errors.Join(errs...)
}

// finish removes the journal when nothing is left to undo and releases it.
func (j *journal) finish() error {
	var err error
	if len(j.entries) == 0 {
		if err = os.Remove(j.path); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	_ = os.Remove(j.next()) // of an owner that was killed in rewrite
	return errors.Join(err, j.file.Close())
}

// startTime returns field 22 of /proc/PID/stat, "" when there is no such
// process. The name in field 2 may hold blanks and brackets.
func startTime(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// networkID tells the thread's network namespace from every other of this boot.
// Kernels before 5.14 have no cookie; their inode numbers may be used again.
func networkID() string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		if cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil {
			return fmt.Sprint("cookie ", cookie)
		}
	}
	var st unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &st) != nil {
		return ""
	}
	return fmt.Sprint("inode ", st.Ino)
}

// BootID tells this start of the kernel from every other; "" where it cannot be read.
func BootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// holds tells whether the journal has an entry of which e is a copy.
func (j *journal) holds(e entry) bool {
	return slices.ContainsFunc(j.entries, func(o entry) bool { return reflect.DeepEqual(o, e) })
}

// forget drops the entries for which gone is true, once they are undone, and
// writes the journal anew, so that it does not grow while the host runs. When
// that fails the file keeps them; to undo what is gone does no harm.
func (j *journal) forget(gone func(entry) bool) error {
	was := len(j.entries)
	if j.entries = slices.DeleteFunc(j.entries, gone); len(j.entries) == was {
		return nil
	}
	return j.rewrite()
}

// rewrite puts a new file in the journal's place. It is locked before it is
// there: whoever opens the path finds the owner at any time.
func (j *journal) rewrite() (err error) {
	data, err := j.text()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.next(), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC, journalMode)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err = lockJournal(f); err == nil {
		if _, err = f.Write(data); err == nil {
			err = os.Rename(j.next(), j.path)
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("journal: %w", err), f.Close(), os.Remove(j.next()))
	}
	old := j.file
	j.file = f
	return old.Close()
}

func (j *journal) next() string { return j.path + ".next" }

// text is the header of the file and the entries as they are now.
func (j *journal) text() ([]byte, error) {
	data, err := os.ReadFile(j.path)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	head, _, _ := bytes.Cut(data, []byte("\n"))
	data = append(head, '\n')
	for _, e := range j.entries {
		line, err := json.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		data = append(append(data, line...), '\n')
	}
	return data, nil
}
