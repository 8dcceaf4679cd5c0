package resume

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// group is the directory of the control group (version 2) that this process is in.
func group() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	own := ""
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			own = rest
		}
	}
	if own == "" {
		return "", errors.New("the process is in no control group of version 2")
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if dir, ok := mounted(lines.Text(), own); ok {
			return dir, nil
		}
	}
	return "", fmt.Errorf("control groups of version 2 are not mounted, or not with %s", own)
}

// mounted is where a line of mountinfo (proc(5)) has a control group, if it is of
// version 2's file system and has it.
func mounted(line, own string) (string, bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields := strings.Fields(before)
	if !ok || !strings.HasPrefix(after, "cgroup2 ") || len(fields) < 5 {
		return "", false
	}
	rel, err := filepath.Rel(fields[3], own)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	return filepath.Join(fields[4], rel), true
}
