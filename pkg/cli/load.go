package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/keyfile"
)

// load reads the configuration file.
func (p *program[C]) load(path string) (cfg C, err error) {
	// Without O_NONBLOCK a named pipe in the file's place would hang the start, and after a
	// reload the stop.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg, fmt.Errorf("no configuration in %s: copy configs/%s.yaml there, or name another with -c: %w", path, p.role.Name, fs.ErrNotExist)
	}
	if err != nil {
		return cfg, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxFile+1))
	if err != nil {
		return cfg, fmt.Errorf("configuration: %w", err)
	}
	return p.role.Parse(path, data)
}

// identity reads the box's key and sees to it that it is not the peer's.
func (p *program[C]) identity(cfg C) (identity.Key, error) {
	key, err := keyfile.Read(cfg.Settings().Identity)
	if err != nil {
		return identity.Key{}, err
	}
	for _, peer := range cfg.Peers() {
		if peer == key.Public() {
			return identity.Key{}, fmt.Errorf("the configuration names this box's own public key %s as the peer's: paste the key that the other box's pubkey prints", key)
		}
	}
	return key, nil
}
