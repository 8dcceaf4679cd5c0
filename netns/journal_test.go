package netns

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func pidText() string { return fmt.Sprint(os.Getpid()) }

const childPlan = "HAWSER_TEST_PLAN"

// TestKilledOwner installs in a process of its own and kills it.
func TestKilledOwner(t *testing.T) {
	if text := os.Getenv(childPlan); text != "" {
		var p Plan
		must(t, json.Unmarshal([]byte(text), &p))
		_, err := Install(p, quiet)
		must(t, err)
		fmt.Println("installed")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent kills us
		return
	}
	w := newWorld(t)
	w.useAllTables()
	before := w.snapshot()
	for _, first := range []string{"Install", "Cleanup"} {
		child := startOwner(t, w.plan)
		_, err := Install(w.plan, quiet)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("with pid %d:", child.Process.Pid)) {
			t.Errorf("Install beside a running owner: %v", err)
		}
		must(t, child.Process.Kill())
		_ = child.Wait()
		if first == "Install" {
			h, err := Install(w.plan, quiet)
			must(t, err)
			must(t, h.Close())
		} else {
			done, err := Cleanup(w.plan.Namespace, w.plan.RunDir)
			if err != nil || len(done) < 20 {
				t.Errorf("Cleanup after kill: %q, %v", done, err)
			}
		}
		w.unchanged(before, "after "+first)
	}
}

func startOwner(t *testing.T, p Plan) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(p)
	must(t, err)
	child := exec.Command(os.Args[0], "-test.run=^TestKilledOwner$", "-test.v")
	child.Env = append(os.Environ(), childPlan+"="+string(text))
	_, err = child.StdinPipe()
	must(t, err)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	scan := bufio.NewScanner(out)
	for scan.Scan() {
		if scan.Text() == "installed" {
			return child
		}
		t.Log("child: ", scan.Text())
	}
	t.Fatal("the child did not install")
	return nil
}

// TestCommandOutlivesItsOwner: what an agent was doing when it was killed is done before
// anybody undoes it.
func TestCommandOutlivesItsOwner(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	before, dir := w.snapshot(), t.TempDir()
	begun := filepath.Join(dir, "begun") // until it is removed, be it with the directory
	path, err := exec.LookPath("iptables-restore")
	must(t, err)
	script := fmt.Sprintf("#!/bin/sh\ntouch %q\nwhile [ -e %q ]; do sleep 0.01; done\nexec %q \"$@\"\n", begun, begun, path)
	must(t, os.WriteFile(filepath.Join(dir, "iptables-restore"), []byte(script), 0o755))
	for _, name := range []string{"iptables", "iptables-save"} {
		path, err := exec.LookPath(name)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nexec "+path+" \"$@\"\n"), 0o755))
	}
	text, err := json.Marshal(w.plan)
	must(t, err)
	child := exec.Command(os.Args[0], "-test.run=^TestKilledOwner$")
	child.Env = append(os.Environ(), childPlan+"="+string(text), "PATH="+dir+":"+os.Getenv("PATH"))
	must(t, child.Start())
	eventually(t, "the first chain", func() bool { _, err := os.Stat(begun); return err == nil })
	must(t, child.Process.Kill())
	_ = child.Wait()
	if _, err := Cleanup(w.plan.Namespace, w.plan.RunDir); err == nil || !strings.Contains(err.Error(), "in use by a process that holds") {
		t.Errorf("Cleanup beside its command: %v", err)
	}
	must(t, os.Remove(begun))
	eventually(t, "the command's end", func() bool { _, err = Cleanup(w.plan.Namespace, w.plan.RunDir); return err == nil })
	w.unchanged(before, "after Cleanup")
}

func TestJournalOfAnotherBootOrNamespace(t *testing.T) {
	w := newWorld(t)
	pid := os.Getpid()
	sysctl := entry{Do: undoSysctl, Path: "net/ipv4/conf/lan0/log_martians", Was: "0", Set: "1"}
	must(t, writeSysctl(sysctl.Path, "1"))
	tests := []struct {
		name string
		head header
		want string
	}{
		{"another boot", header{PID: pid, Boot: "x", Net: networkID()}, "1"},
		{"another namespace", header{PID: pid, Boot: BootID(), Net: "cookie 1"}, "1"},
		{"this one", header{PID: pid, Boot: BootID(), Net: networkID()}, "0"},
	}
	for _, tt := range tests {
		path := journalPath(w.plan.RunDir, w.plan.Namespace)
		must(t, os.WriteFile(path, append(append(jsonLine(t, tt.head), jsonLine(t, sysctl)...), `{"do":"inter`...), 0o644))
		_, err := Cleanup(w.plan.Namespace, w.plan.RunDir)
		must(t, err)
		if v, _ := readSysctl(sysctl.Path); v != tt.want {
			t.Errorf("%s: value is %s, want %s", tt.name, v, tt.want)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: the journal is still there: %v", tt.name, err)
		}
	}
}

func jsonLine(t *testing.T, v any) []byte {
	data, err := json.Marshal(v)
	must(t, err)
	return append(data, '\n')
}

func TestJournalPathUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := openJournal(filepath.Join(file, "dir"), "x", true); err == nil || !strings.HasPrefix(err.Error(), "journal: ") {
		t.Errorf("error %v", err)
	}
}

// TestJournalIsNone: what would be read without end is an error.
func TestJournalIsNone(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"is no file":           func(path string) error { return unix.Mkfifo(path, 0o600) },
		"which no journal has": func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
		"x.undo: is no file":   func(path string) error { return os.Symlink("/dev/zero", path) },
	} {
		dir := t.TempDir()
		must(t, put(journalPath(dir, "x")))
		for _, create := range []bool{true, false} {
			if _, err := openJournal(dir, "x", create); err == nil || !strings.Contains(err.Error(), name) || !errors.As(err, new(*fs.PathError)) {
				t.Errorf("%s: error %v", name, err)
			}
		}
	}
}

// TestJournalOnAFullDisk: an entry that finds no room is an error, and what comes
// when there is room again is read all the same.
func TestJournalOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small tmpfs")
	}
	dir := t.TempDir()
	must(t, unix.Mount("none", dir, "tmpfs", 0, "size=4k"))
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	j, err := openJournal(dir, "x", true)
	must(t, err)
	defer j.file.Close()
	must(t, j.begin(RoleEdge))
	said := 0
	for ; err == nil; said++ {
		err = j.record(entry{Do: undoSpace, Name: fmt.Sprintf("entry%d", said)})
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	must(t, unix.Mount("none", dir, "", unix.MS_REMOUNT, "size=64k"))
	last := entry{Do: undoSpace, Name: "last"}
	must(t, j.record(last))
	again := &journal{path: j.path}
	must(t, again.load())
	if n := len(again.entries); n != said || again.entries[n-1].Name != last.Name {
		t.Errorf("%d of %d entries were read", n, said)
	}
}

// TestCleanupKeepsOthersOut: while something is removed by its name, an agent
// that starts would lose what it has just made.
func TestCleanupKeepsOthersOut(t *testing.T) {
	w := newWorld(t)
	path, err := exec.LookPath("iptables")
	must(t, err)
	dir := t.TempDir()
	journal, free := journalPath(w.plan.RunDir, w.plan.Namespace), filepath.Join(dir, "free")
	// Cleanup asks for our chains by name: then nobody else may have the journal.
	script := fmt.Sprintf("#!/bin/sh\nflock -n %q true && touch %q\nexec %q \"$@\"\n", journal, free, path)
	must(t, os.WriteFile(filepath.Join(dir, "iptables"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for name, prepare := range map[string]func(){
		"with a journal": func() {
			must(t, os.WriteFile(journal, jsonLine(t, header{Boot: BootID(), Net: networkID()}), 0o644))
		},
		"without": func() {},
	} {
		prepare()
		_, err := Cleanup(w.plan.Namespace, w.plan.RunDir)
		must(t, err)
		if os.Remove(free) == nil {
			t.Errorf("%s: the journal was free meanwhile", name)
		}
		if left, err := os.ReadDir(w.plan.RunDir); err != nil || len(left) > 0 {
			t.Errorf("%s: left over: %v, %v", name, left, err)
		}
	}
}

// TestJournalForgets: the file keeps what is still to undo, its lock and its owner.
func TestJournalForgets(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, "x", true)
	must(t, err)
	must(t, j.begin(RoleEdge))
	for _, name := range []string{"a", "b", "c"} {
		must(t, j.record(entry{Do: undoSpace, Name: name}))
	}
	must(t, j.forget(func(e entry) bool { return e.Name == "b" }))
	must(t, j.record(entry{Do: undoSpace, Name: "d"}))
	if _, err := openJournal(dir, "x", true); err == nil || !strings.Contains(err.Error(), "running hawser-edge with pid "+pidText()) {
		t.Errorf("opened beside its owner: %v", err)
	}
	again := &journal{path: j.path}
	must(t, again.load())
	var names string
	for _, e := range again.entries {
		names += e.Name
	}
	if names != "acd" {
		t.Errorf("the file has %q, want acd", names)
	}
	j.entries = nil
	must(t, j.finish())
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// TestJournalIsNobodyElses: no other user can open a journal, new or written anew, and lock it.
func TestJournalIsNobodyElses(t *testing.T) {
	j, err := openJournal(t.TempDir(), "x", true)
	must(t, err)
	defer j.file.Close()
	must(t, j.begin(RoleEdge))
	must(t, j.record(entry{Do: undoSpace, Name: "a"}))
	for _, when := range []string{"new", "written anew"} {
		info, err := os.Stat(j.path)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", when, info.Mode())
		}
		must(t, j.forget(func(e entry) bool { return e.Name == "a" }))
	}
}

// TestJournalIsLookedAt: check holds the journal of a dead owner for a moment, a
// start in that moment waits for it; one that is held for good is an error.
func TestJournalIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.WriteFile(journalPath(dir, "x"), jsonLine(t, header{Boot: BootID(), Net: networkID()}), 0o644))
		look, err := openJournal(dir, "x", false)
		must(t, err)
		begin := time.Now()
		if _, err := openJournal(dir, "x", true); err == nil || !strings.Contains(err.Error(), "in use by a process that holds") || time.Since(begin) > 3*time.Second {
			t.Errorf("held for good: %v after %v", err, time.Since(begin))
		}
		time.AfterFunc(200*time.Millisecond, func() { look.file.Close() })
		j, err := openJournal(dir, "x", true)
		must(t, err)
		must(t, j.finish())
	})
}

func TestStartTime(t *testing.T) {
	if a := startTime(os.Getpid()); a == "" || a != startTime(os.Getpid()) {
		t.Errorf("own start time is %q", a)
	}
	if s := startTime(1 << 30); s != "" {
		t.Errorf("start time of no process is %q", s)
	}
}

// FuzzJournal: whatever stands in a journal, reading it does not panic and
// keeps only entries that say what they are.
func FuzzJournal(f *testing.F) {
	f.Add([]byte("{\"boot\":\"x\"}\n{\"do\":\"rule\"}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x.undo")
		head := jsonLine(t, header{Boot: BootID(), Net: networkID()})
		must(t, os.WriteFile(path, append(head, data...), 0o600))
		j := &journal{path: path}
		if err := j.load(); err != nil {
			t.Fatal(err)
		}
		for _, e := range j.entries {
			if e.Do == "" {
				t.Fatalf("entry without a kind: %+v", e)
			}
		}
	})
}
