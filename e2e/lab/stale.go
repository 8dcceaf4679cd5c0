package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namesDir is where named namespaces live, as for ip netns.
const namesDir = "/run/netns"

// namespaceNames returns the named namespaces of the host, sorted.
func namespaceNames() ([]string, error) {
	entries, err := os.ReadDir(namesDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// namespaces returns the present names that belong to this lab.
func (l *Lab) namespaces() []string {
	names, _ := namespaceNames()
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, l.id+"-") })
}

// labName matches names of namespaces and directories and captures the owner.
var labName = regexp.MustCompile(`^` + prefix + `[a-zA-Z0-9.]+-(\d+)-\d+(-|$)`)

// CleanStale removes what labs left whose process is gone: their processes,
// namespaces and directories. Labs of living processes are not touched.
func CleanStale() error {
	names, err := namespaceNames()
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !stale(n) })
	errs := []error{killInside(names), deleteNamespaces(names)}
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	journals, _ := filepath.Glob(filepath.Join("/run/hawser", prefix+"*")) // of agents that were killed in them
	for _, dir := range append(dirs, journals...) {
		if stale(filepath.Base(dir)) {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// stale tells whether the name belongs to a lab whose process is gone.
func stale(name string) bool {
	m := labName.FindStringSubmatch(name)
	if m == nil {
		return false
	}
	pid, err := strconv.Atoi(m[1])
	return err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// killInside ends the processes that live in the named namespaces, except this one,
// and waits until they are gone.
func killInside(names []string) error {
	inodes := map[uint64]bool{}
	for _, n := range names {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(namesDir, n), &st) == nil {
			inodes[st.Ino] = true
		}
	}
	for deadline := time.Now().Add(stopGrace); ; time.Sleep(10 * time.Millisecond) {
		pids := pidsInside(inodes)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not die", pids)
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// pidsInside returns the processes whose network namespace has one of the inodes.
func pidsInside(inodes map[uint64]bool) []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, f := range files {
		var st unix.Stat_t
		if unix.Stat(f, &st) != nil || !inodes[st.Ino] {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(f, "/")[2])
		if err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

func deleteNamespaces(names []string) error {
	var errs []error
	for _, n := range names {
		if err := netns.DeleteNamed(n); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("namespace %s: %w", n, err))
		}
	}
	return errors.Join(errs...)
}
