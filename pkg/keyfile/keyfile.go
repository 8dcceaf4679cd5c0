// Package keyfile keeps a box's private key in a file that its owner alone may
// read. It starts no goroutines.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hawser/pkg/identity"
)

// Read returns the key in the file, after checking that nobody but its owner
// can read or change it. Errors are one line and name the file.
func Read(path string) (identity.Key, error) {
	// Without O_NONBLOCK a named pipe in the key's place would hang the agent.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return identity.Key{}, fmt.Errorf("no private key in %s: make one with `genkey -o %s`: %w", path, path, fs.ErrNotExist)
	}
	if err != nil {
		return identity.Key{}, fmt.Errorf("private key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return identity.Key{}, fmt.Errorf("private key: %w", err)
	}
	if err := identity.CheckMode(path, info.Mode()); err != nil {
		return identity.Key{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, identity.MaxFile+1))
	if err != nil {
		return identity.Key{}, fmt.Errorf("private key: %w", err)
	}
	key, err := identity.Parse(data)
	if err != nil {
		return identity.Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// Create writes the key to a new file of mode 0600. It never replaces a file:
// a lost key cannot be brought back.
func Create(path string, key identity.Key) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: a key is never overwritten, remove the file first: %w", path, fs.ErrExist)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("private key: there is no directory %s: make it first: %w", filepath.Dir(path), fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	_, err = f.Write(key.Encode())
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		_ = os.Remove(path) // half a key helps nobody
		return fmt.Errorf("private key in %s: %w", path, err)
	}
	return nil
}
