package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Binary returns the file of a program of this module, given by its import path:
// "hawser/edge" is hawser-edge. If the environment variable HAWSER_BIN names a directory
// that holds a file of that name, it is taken as it is. Otherwise the program is built
// with the Go tool into the user's cache; that takes no time when nothing changed.
func Binary(pkg string) (string, error) {
	name := "hawser-" + strings.TrimPrefix(path.Base(pkg), "hawser-")
	if dir := os.Getenv("HAWSER_BIN"); dir != "" {
		if full := filepath.Join(dir, name); executable(full) {
			return full, nil
		}
	}
	dir, err := binaryCache()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	defer unlock()
	full := filepath.Join(dir, name)
	if out, err := exec.Command("go", "build", "-o", full, pkg).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return full, nil
}

func executable(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func binaryCache() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	dir := filepath.Join(base, "hawser-e2e")
	return dir, os.MkdirAll(dir, 0o755)
}

// lockDir keeps two test processes from building into the directory at once.
func lockDir(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return f.Close, nil
}
