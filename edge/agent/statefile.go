package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

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
	if dir, err := admin.Makeable(f.path); err != nil {
		return fmt.Errorf("state: %s cannot be written in %s: %w: what links with a quota carry is forgotten at every start", f.path, dir, err)
	}
	return nil
}

// load returns what was stored; a missing file holds nothing. One that cannot be
// read is put aside, its name ending in .bad.
func (f stateFile) load() (map[string]quota.State, error) {
	data, err := readAtMost(f.path, stateMost)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var s state
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		bad := f.path + ".bad"
		if failed := os.Rename(f.path, bad); failed != nil {
			return nil, fmt.Errorf("%s: %w; it cannot be put aside: %w", f.path, err, failed)
		}
		return nil, fmt.Errorf("%s is put aside as %s: %w", f.path, bad, err)
	}
	return s.Quotas, nil
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
		err = fmt.Errorf("it has more than %d bytes", most)
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
