package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/pkg/box"
)

// TestMemoryLimit: an agent in a control group of 128 MB, as by MemoryMax= or in a container,
// shares out half of that and not the 512 MiB of the default, for which the kernel kills it.
func TestMemoryLimit(t *testing.T) {
	lab.NeedRoot(t)
	group := memoryGroup(t, 128<<20) // first, so that it goes when the agent has ended
	r := prepareRelay(t, 7001)
	conf, err := r.WriteFile("far.yaml", r.relay.FarYAML())
	if err != nil {
		t.Fatal(err)
	}
	bin, err := lab.Binary("hawser/cloud")
	if err != nil {
		t.Fatal(err)
	}
	const enter = `echo $$ >"$0/cgroup.procs" && exec "$@"`
	if r.relay.Far, err = r.Lab.Start("cloud", "sh", "-c", enter, group, bin, "relay", "-c", conf); err != nil {
		t.Fatal(err)
	}
	if err := r.relay.Far.WaitFor("relay runs", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	status, err := r.relay.Status("far")
	if most := box.Payload(64<<20, 0); err != nil || int64(status.Memory.Budget) > most {
		t.Errorf("payload may take %d bytes, want %d or less: %v\n%s", status.Memory.Budget, most, err, r.relay.Far.Output())
	}
}

// memoryGroup makes a control group with a memory limit, of version 2 or 1.
func memoryGroup(t *testing.T, bytes int) string {
	t.Helper()
	name := fmt.Sprintf("hwlab-memory-%d", os.Getpid())
	for root, file := range map[string]string{"/sys/fs/cgroup": "memory.max", "/sys/fs/cgroup/memory": "memory.limit_in_bytes"} {
		dir := filepath.Join(root, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		if setLimit(filepath.Join(dir, file), bytes) == nil {
			t.Cleanup(func() {
				if err := os.Remove(dir); err != nil {
					t.Errorf("the group stays: %v", err)
				}
			})
			return dir
		}
		os.Remove(dir)
	}
	t.Skip("no control groups with a memory limit here")
	return ""
}

// setLimit makes no file: what is not there is no control group's.
func setLimit(file string, bytes int) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(f, bytes)
	return errors.Join(err, f.Close())
}
