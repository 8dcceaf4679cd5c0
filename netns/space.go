package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// shareSpaces makes the directory of named namespaces a shared mount of its own, as
// ip-netns(8) does before its first namespace, and waits for whoever does so at the moment, as
// that does. Were it left to others, their mount would cover a namespace of ours that
// stands by then, and nobody could take its name away any more. It stays, as that of ip
// does: others' namespaces may have come into it.
func shareSpaces() error {
	if err := os.MkdirAll(namespaceDir, 0o755); err != nil {
		return err
	}
	share := func() error { return unix.Mount("", namespaceDir, "none", unix.MS_SHARED|unix.MS_REC, "") }
	if err := share(); err != unix.EINVAL {
		return err
	}
	dir, err := os.Open(namespaceDir)
	if err != nil {
		return err
	}
	defer dir.Close() // and with it the lock
	lockSpaces(dir)
	if err := share(); err != unix.EINVAL {
		return err
	}
	if err := unix.Mount(namespaceDir, namespaceDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return share()
}

// spacesPatience is far more than whoever makes the mount takes. Any user can lock the directory
// for as long as he likes, and would keep agents from starting.
const spacesPatience = 500 * time.Millisecond

// lockSpaces waits for whoever makes the mount.
func lockSpaces(dir *os.File) {
	for end := time.Now().Add(spacesPatience); time.Now().Before(end); time.Sleep(lockPause) {
		if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) != unix.EWOULDBLOCK {
			return
		}
	}
}

// createSpace makes the named namespace as `ip netns add` does. The alias is
// set before the name appears, so a named namespace of ours is never unmarked.
func createSpace(name string) error {
	if err := shareSpaces(); err != nil {
		return fmt.Errorf("share %s: %w", namespaceDir, err)
	}
	path := filepath.Join(namespaceDir, name)
	return insideFresh(func() error {
		if err := markSpace(); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
		if err != nil {
			return err
		}
		f.Close()
		self := fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		if err := unix.Mount(self, path, "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", path, err)
		}
		return nil
	})
}

// removeSpace takes the name away; the namespace goes when its last socket is
// closed. done is false when there was nothing.
func removeSpace(name string) (done bool, err error) {
	path := filepath.Join(namespaceDir, name)
	if _, err := os.Lstat(path); os.IsNotExist(err) {
		return false, nil
	}
	// EINVAL: not a mount point, a start ended between file and mount.
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
		return false, fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return false, err
	}
	return true, nil
}

// spaceMounted tells whether path is a namespace and not just its empty file.
func spaceMounted(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}
