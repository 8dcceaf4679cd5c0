package keyfile

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hawser/pkg/identity"
)

func TestCreateAndRead(t *testing.T) {
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "edge.key")
	if err := Create(path, key); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if got, err := Read(path); err != nil || got != key {
		t.Errorf("Read = %v, %v; want %v", got, err, key)
	}
	other, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(path, other); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: got %v, want fs.ErrExist", err)
	}
	if got, err := Read(path); err != nil || got != key {
		t.Errorf("after the refused Create: Read = %v, %v; want %v", got, err, key)
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, data string, mode os.FileMode) string {
		if err := os.WriteFile(at(name), []byte(data), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(at(name), mode); err != nil {
			t.Fatal(err)
		}
		return at(name)
	}
	pipe := at("pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{at("none"), "no private key in " + at("none") + ": make one with `genkey -o "},
		{write("open", "x", 0o644), "has mode 0644, so others can read or change the private key: run chmod 600 " + at("open")},
		{write("bad", "x", 0o600), at("bad") + ": not a private key: expected one line of 44 characters"},
		{write("huge", strings.Repeat("\n", 1<<20), 0o600), at("huge") + ": not a private key"},
		{dir, dir + " is not a regular file"},
		{pipe, pipe + " is not a regular file"},
	} {
		_, err := Read(c.path)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Read(%s): got %v, want %s", c.path, err, c.want)
		}
	}
	if err := Create(at("none/key"), identity.Key{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Create in a missing directory: got %v", err)
	}
}
