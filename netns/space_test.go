package netns

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFirstNamespace: on a host where ours is the first named namespace since it was
// booted, ip-netns(8) makes others afterwards, and ours can be removed all the same.
func TestFirstNamespace(t *testing.T) {
	const inside = "HAWSER_TEST_FRESH_RUN"
	if os.Getenv(inside) != "" {
		firstNamespace(t)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for namespaces")
	}
	c := exec.Command("unshare", "--mount", "--propagation", "private", os.Args[0], "-test.run=^TestFirstNamespace$", "-test.v")
	c.Env = append(os.Environ(), inside+"=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// lockedByAnother makes the directory of namespaces, and locks it as any user can.
func lockedByAnother() (*os.File, error) {
	if err := os.Mkdir(namespaceDir, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(namespaceDir)
	if err != nil {
		return nil, err
	}
	return dir, unix.Flock(int(dir.Fd()), unix.LOCK_EX)
}

// firstNamespace has the mounts to itself.
func firstNamespace(t *testing.T) {
	if err := unix.Mount("none", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	lock, err := lockedByAnother()
	if err != nil {
		t.Fatal(err)
	}
	const ours, others = "hawsertest-first", "hawsertest-second"
	made := make(chan error, 1)
	go func() { made <- createSpace(ours) }()
	select {
	case err := <-made:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patient):
		t.Fatal("a namespace waits for who has locked the directory")
	}
	lock.Close() // ip waits
	path := filepath.Join(namespaceDir, ours)
	if !spaceMounted(path) {
		t.Fatal("no namespace has the name")
	}
	if out, err := exec.Command("ip", "netns", "add", others).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if done, err := removeSpace(ours); !done || err != nil {
		t.Errorf("removed: %v, %v", done, err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the name is still there: %v", err)
	}
	if err := createSpace(ours); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if spaces, err := os.ReadDir(namespaceDir); err != nil || len(spaces) != 2 {
		t.Errorf("%v, %v, want two namespaces", spaces, err)
	}
}
