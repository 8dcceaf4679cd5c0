package cli

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
)

// journal gives systemd's journal the level of each line, so that `journalctl -p warning`
// finds what matters and colours tell. Each write is a line of a slog.TextHandler that
// writes no time; the journal has its own.
type journal struct{ w io.Writer }

// inJournal tells whether w is the stream that systemd has connected to its journal, which
// it names in JOURNAL_STREAM: children and a shell's redirections inherit the variable.
func inJournal(w io.Writer, stream string) bool {
	f, ok := w.(interface{ Stat() (fs.FileInfo, error) })
	if !ok || stream == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", s.Dev, s.Ino)
}

func timeless(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
		return slog.Attr{}
	}
	return a
}

// priorities are syslog's, by the level at the line's begin.
var priorities = []struct{ level, priority string }{
	{"level=DEBUG", "<7>"}, {"level=WARN", "<4>"}, {"level=ERROR", "<3>"},
}

func (j journal) Write(line []byte) (int, error) {
	priority := "<6>"
	for _, p := range priorities {
		if bytes.HasPrefix(line, []byte(p.level)) {
			priority = p.priority
		}
	}
	n, err := j.w.Write(append([]byte(priority), line...))
	return max(n-len(priority), 0), err
}

// complain writes the line that says why a verb has failed.
func (p *program[C]) complain(why string) {
	priority := ""
	if inJournal(p.err, os.Getenv("JOURNAL_STREAM")) {
		priority = "<3>"
	}
	fmt.Fprintf(p.err, "%s%s: %s\n", priority, p.binary(), why)
}
