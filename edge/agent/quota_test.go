package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/quota"
	"hawser/scheduler"
)

// meteredEdge is an edge with two links, of which the second has a quota of
// 30 MB, and its counters.
type meteredEdge struct {
	*quotas
	lte     *uplink
	carried *netns.Traffic // of lte; nil: no such interface
}

func newMeteredEdge(path string, carried *netns.Traffic, log *slog.Logger) *meteredEdge {
	t := &tunnels{term: newTerm(), log: log}
	t.uplinks = []*uplink{newUplink(0, "wifi", t), newUplink(1, "lte", t)}
	cfg := &config.Edge{State: path, Links: []config.Link{
		{Name: "wifi", Interface: "wlan0"}, {Name: "lte", Interface: "wwan0", Quota: 30_000_000, QuotaDay: 1},
	}}
	quotas, _ := newQuotas(cfg, t.uplinks, log) // of a file
	e := &meteredEdge{lte: t.uplinks[1], carried: carried, quotas: quotas}
	e.begin(func() ([]*netns.Traffic, error) { return []*netns.Traffic{{Index: 2}, e.carried}, nil })
	return e
}

// expect checks what both ends are told and what status shows.
func (e *meteredEdge) expect(t *testing.T, step string, want scheduler.Tier, used uint64) {
	t.Helper()
	e.count(time.Now())
	if got := e.lte.termsNow().Tier; got != want {
		t.Errorf("%s: tier %v, want %v", step, got, want)
	}
	if q := e.lte.quotaStatus(time.Now()); q == nil || q.Used != used || q.Bytes != 30_000_000 || !q.Ends.After(q.Begun) {
		t.Errorf("%s: status shows %+v, want %d used", step, q, used)
	}
}

// TestQuota: a link that is ahead of its month is a standby one, one that has
// spent it the last resort, over restarts, and the next month begins anew. The
// test's clock begins on 1 January 2000.
func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "lib", "edge.state")
		log := slog.New(slog.DiscardHandler)
		e := newMeteredEdge(path, &netns.Traffic{Index: 3}, log)
		e.carried.SentBytes, e.carried.ReceivedBytes = 100_000, 200_000
		e.expect(t, "a little", scheduler.Primary, 300_000)
		e.carried.ReceivedBytes = 1_900_000
		e.expect(t, "more than its share", scheduler.Standby, 2_000_000)
		e.save()
		crashed := e.carried
		crashed.ReceivedBytes += 500_000

		e = newMeteredEdge(path, crashed, log)
		e.expect(t, "after a crash", scheduler.Standby, 2_500_000)
		time.Sleep(5 * 24 * time.Hour)
		e.expect(t, "its share has grown", scheduler.Primary, 2_500_000)
		e.carried = nil
		e.expect(t, "the modem is away", scheduler.Primary, 2_500_000)
		e.carried = &netns.Traffic{Index: 4, ReceivedBytes: 28_000_000}
		e.expect(t, "it comes back, and all is spent", scheduler.LastResort, 30_500_000)
		e.save()
		time.Sleep(27 * 24 * time.Hour)
		e = newMeteredEdge(path, &netns.Traffic{Index: 4, ReceivedBytes: 28_000_000}, log)
		e.expect(t, "the next month", scheduler.Primary, 0)
		if q := e.quotas.links[0]; q.link != e.lte || e.lte.tunnels.uplinks[0].quotaStatus(time.Now()) != nil {
			t.Error("the wrong link has a quota")
		}
	})
}

// TestStateFile: it is there as a whole or not at all, keeps links that are not
// configured now, and a broken one costs the counts, not the edge.
func TestStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.state")
	f := stateFile{path}
	if got, err := f.load(); got != nil || err != nil {
		t.Errorf("a missing file: %v, %v", got, err)
	}
	if err := f.store(map[string]quota.State{"dsl": {Used: 7}}); err != nil {
		t.Fatal(err)
	}
	// The program died while it wrote the next one.
	if err := os.WriteFile(path+".new", []byte(`{"quo`), 0o600); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	e := newMeteredEdge(path, &netns.Traffic{Index: 3}, slog.New(slog.NewTextHandler(&text, nil)))
	e.carried.SentBytes = 5
	e.count(time.Now())
	e.save()
	if got, err := f.load(); err != nil || got["dsl"].Used != 7 || got["lte"].Used != 5 {
		t.Errorf("the file holds %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte(`{"quo`), 0o600); err != nil {
		t.Fatal(err)
	}
	e = newMeteredEdge(path, &netns.Traffic{Index: 3}, slog.New(slog.NewTextHandler(&text, nil)))
	if e.lte.quotaStatus(time.Now()) == nil || !strings.Contains(text.String(), "counting begins anew") {
		t.Errorf("a broken file: the log says %s", text.String())
	}
	if _, err := os.Stat(path + ".bad"); err != nil {
		t.Error(err)
	}
	text.Reset()
	e.file.path = "/proc/none/edge.state"
	for n := range uint64(4) {
		if e.carried.SentBytes = 9 + n; n == 3 {
			e.file.path = path
		}
		e.count(time.Now())
		e.save()
	}
	if was, is := strings.Count(text.String(), "not kept over a restart"), strings.Count(text.String(), "restart again"); was != 1 || is != 1 {
		t.Errorf("a file that cannot be written for a while: the log says %s", text.String())
	}
}

// TestStateUnreadable: a file that cannot be read for a while is left as it is, and nothing is
// lost once it can; one that never can be is put aside after some minutes.
func TestStateUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "edge.state")
		good := path + ".good"
		carried := &netns.Traffic{Index: 3, SentBytes: 1_000_000}
		e := newMeteredEdge(good, carried, slog.New(slog.DiscardHandler))
		carried.SentBytes += 2_000_000
		e.expect(t, "before the restart", scheduler.Standby, 2_000_000)
		e.save()

		hide := func() { // reading fails: too many links
			if err := os.Symlink(path, path); err != nil {
				t.Fatal(err)
			}
		}
		var text strings.Builder
		log := slog.New(slog.NewTextHandler(&text, nil))
		hide()
		carried.SentBytes += 1000
		e = newMeteredEdge(path, carried, log)
		carried.SentBytes += 500
		e.expect(t, "the file cannot be read", scheduler.Primary, 500)
		e.save()
		if err := os.Rename(good, path); err != nil {
			t.Fatal(err)
		}
		e.save()
		e.expect(t, "now it can", scheduler.Standby, 2_001_500)
		if got, err := e.file.load(); err != nil || got["lte"].Used != 2_001_500 {
			t.Errorf("the file holds %+v, %v", got, err)
		}
		if s := text.String(); strings.Count(s, "cannot be read") != 1 || strings.Count(s, "is read now") != 1 {
			t.Errorf("the log says %s", s)
		}

		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		hide()
		e = newMeteredEdge(path, carried, log)
		for range readTries {
			e.save()
		}
		if got, err := e.file.load(); err != nil || len(got) != 1 || !strings.Contains(text.String(), "is put aside as "+path+".bad") {
			t.Errorf("the file holds %+v, %v; the log says %s", got, err, text.String())
		}
	})
}

// TestStateIsNoFile: run refuses a directory before it changes anything, and moves
// nothing away; check says so as well, and of a file that could not be written.
func TestStateIsNoFile(t *testing.T) {
	dir := t.TempDir()
	inside := filepath.Join(dir, "precious")
	if err := os.WriteFile(inside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]admin.Level{
		dir: admin.LevelFail, inside + "/state": admin.LevelWarn,
		filepath.Join(dir, "a/b/state"): "",
	} {
		cfg := &config.Edge{State: path, Links: []config.Link{{Name: "lte", Quota: 1e9, QuotaDay: 1}}}
		found := checkState(cfg)
		if want == "" && len(found) == 0 {
			continue
		}
		if len(found) != 1 || found[0].Level != want || !strings.HasPrefix(found[0].What, "state: "+path+" ") {
			t.Errorf("%s: %+v, want %q", path, found, want)
		}
		_, err := newQuotas(cfg, []*uplink{{}}, slog.New(slog.DiscardHandler))
		if (err != nil) != (want == admin.LevelFail) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Stat(inside); err != nil {
		t.Error(err)
	}
	if found := checkState(&config.Edge{State: dir, Links: []config.Link{{Name: "lte"}}}); len(found) > 0 {
		t.Errorf("no link has a quota: %+v", found)
	}
}

// TestStateFull: check tells of a disk without room for the file.
func TestStateFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("needs root: mounts a small disk: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	f := stateFile{filepath.Join(dir, "hawser", "edge.state")}
	if err := f.writable(); err != nil {
		t.Errorf("there is room: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "log"), make([]byte, 4<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.writable(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
}

// TestHugeStateFile: what cannot be a state file takes no memory, and is put aside.
func TestHugeStateFile(t *testing.T) {
	f := stateFile{filepath.Join(t.TempDir(), "state")}
	if err := os.WriteFile(f.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(f.path, 1<<40); err != nil {
		t.Fatal(err)
	}
	_, err := f.load()
	if err = f.putAside(err); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "is put aside as "+f.path+".bad: it is damaged: it has more than 1048576 bytes") {
		t.Errorf("error %v", err)
	}
}
