package keyfile

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"hawser/pkg/identity"
)

// TestCreateWithoutDirectory: who has not installed yet is told what to make.
func TestCreateWithoutDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hawser")
	err := Create(filepath.Join(dir, "edge.key"), identity.Key{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no directory "+dir+": make it first") {
		t.Errorf("error %v", err)
	}
}
