package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/quota"
)

// stateFile holds what an edge must know after a restart. It is replaced as a
// whole, so that a crash at any moment leaves the old one or the new one.
type stateFile struct{ path string }

// state is what stands in the file.
type state struct {
	Quotas map[string]quota.State `json:"quotas"` // by link
}

// check refuses what cannot be the file: load would put it aside, a directory with
// all that is in it.
func (f stateFile) check() error {
	info, err := os.Stat(f.path)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("state: %s is no file: name a file, such as %s", f.path, config.DefaultState)
	}
	return nil
}

// writable says why the file could not be written.
func (f stateFile) writable() error {
	dir, err := admin.Makeable(f.path)
	var disk unix.Statfs_t
	if err == nil && unix.Statfs(dir, &disk) == nil && disk.Blocks > 0 && disk.Bavail == 0 {
		err = unix.ENOSPC
	}
	if err != nil {
		return fmt.Errorf("state: %s cannot be written in %s: %w: what links with a quota carry is forgotten at every start", f.path, dir, err)
	}
	return nil
}

// errDamaged is the error of a file that was read and holds no state.
var errDamaged = errors.New("it is damaged")

// load returns what was stored; a missing file holds nothing. The error matches errDamaged
// where reading it again does not help.
func (f stateFile) load() (map[string]quota.State, error) {
	data, err := readAtMost(f.path, stateMost)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return s.Quotas, nil
}

// putAside renames the file, its name ending in .bad, and says so of the error why.
func (f stateFile) putAside(why error) error {
	bad := f.path + ".bad"
	if failed := os.Rename(f.path, bad); failed != nil {
		return fmt.Errorf("%s: %w; it cannot be put aside: %w", f.path, why, failed)
	}
	return fmt.Errorf("%s is put aside as %s: %w", f.path, bad, why)
}

// stateMost is more than a file of any number of links has, in bytes.
const stateMost = 1 << 20

func readAtMost(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%w: it has more than %d bytes", errDamaged, most)
	}
	return data, err
}

// store replaces the file, and makes its directory.
func (f stateFile) store(quotas map[string]quota.State) error {
	data, err := json.MarshalIndent(state{Quotas: quotas}, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(f.path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	next := f.path + ".new"
	if err := writeSynced(next, append(data, '\n')); err != nil {
		return err
	}
	if err := os.Rename(next, f.path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeSynced writes a file and returns when it is on the disk.
func writeSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}
