package netns

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

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

// firstNamespace has the mounts to itself.
func firstNamespace(t *testing.T) {
	if err := unix.Mount("none", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	const ours, others = "hawsertest-first", "hawsertest-second"
	if err := createSpace(ours); err != nil {
		t.Fatal(err)
	}
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
