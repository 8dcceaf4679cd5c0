package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hawser/pkg/config"
)

// TestLogOfTheJournal: under systemd lines carry their level as the journal reads it, and no
// time beside its own; a stream that is not the journal's gets what it always got, also
// where the variable is inherited.
func TestLogOfTheJournal(t *testing.T) {
	logged := func(stream func(dev, ino uint64) string) string {
		file, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		var s syscall.Stat_t
		if err := syscall.Fstat(int(file.Fd()), &s); err != nil {
			t.Fatal(err)
		}
		t.Setenv("JOURNAL_STREAM", stream(s.Dev, s.Ino))
		p := &program[*config.Edge]{role: Role[*config.Edge]{Name: "edge"}, err: file}
		log, err := p.logger("debug")
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("tiny")
		log.Info("runs", "links", 2, "time", 5)
		log.With("link", "lte").Warn("two\nlines")
		log.Error("gone")
		p.complain("no session")
		text, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	want := "<7>level=DEBUG msg=tiny\n<6>level=INFO msg=runs links=2 time=5\n" +
		"<4>level=WARN msg=\"two\\nlines\" link=lte\n<3>level=ERROR msg=gone\n<3>hawser-edge: no session\n"
	if got := logged(func(dev, ino uint64) string { return fmt.Sprintf("%d:%d", dev, ino) }); got != want {
		t.Errorf("in the journal:\n%swant:\n%s", got, want)
	}
	for _, other := range []string{"", "1:2"} {
		got := logged(func(uint64, uint64) string { return other })
		if strings.Count(got, "time=20") != 4 || strings.Contains(got, "<") || !strings.Contains(got, "hawser-edge: no session\n") {
			t.Errorf("JOURNAL_STREAM=%q:\n%s", other, got)
		}
	}
	if inJournal(&bytes.Buffer{}, "1:2") {
		t.Error("a buffer is no journal")
	}
}
