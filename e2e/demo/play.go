package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// What a download is called.
const (
	tunnelled = "tunnel"
	direct    = "direct"
)

// originPort is where nginx serves steered clients.
const originPort = 80

// demo is one run.
type demo struct {
	opts   options
	screen *screen
	lab    *lab.Lab
	pair   *pair.Pair
	origin file
	cutAt  time.Duration // since the tunnel download began
}

// file is what the origin serves.
type file struct {
	size int64
	sum  string // SHA-256, in hex
}

// play runs the demo and removes everything before it returns. The error tells
// why the file is not at the client as it is at the origin.
func play(ctx context.Context, o options, s *screen) (err error) {
	s.say("hawser: one download over two uplinks; %s is cut when half of it is there\n\n%s", o.cut, picture())
	if err := lab.CleanStale(); err != nil {
		return err
	}
	spec := lab.Spec{Name: "demo", IPv6: true, Clients: 1, Seed: 1, Uplinks: uplinks()}
	l, err := lab.New(spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	p, err := pair.New(l, spec, pair.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	d := &demo{opts: o, screen: s, lab: l, pair: p}
	if err := d.serve(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.compare(ctx)
}

// serve makes the file and starts nginx and both agents.
func (d *demo) serve() error {
	site := filepath.Join(d.lab.Dir(), "site")
	if err := os.Mkdir(site, 0o755); err != nil {
		return err
	}
	var err error
	if d.origin, err = makeFile(filepath.Join(site, "file"), d.opts.size); err != nil {
		return err
	}
	if _, err := d.lab.Nginx(site, originPort, pair.DirectPort); err != nil {
		return err
	}
	d.screen.say("origin   nginx serves %.0f MB of random bytes, sha256 %s...", float64(d.origin.size)/megabyte, d.origin.sum[:16])
	if err := d.pair.Start(); err != nil {
		return err
	}
	links, err := d.pair.Links()
	if err != nil {
		return err
	}
	for _, u := range uplinks() {
		l := links[u.Name]
		d.screen.say("link     %-4s is %s: %s to %s by %s", u.Name, l.State, l.Transport, l.Remote, l.Interface)
	}
	return nil
}

// makeFile writes size random bytes, which nothing can compress.
func makeFile(name string, size int64) (file, error) {
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return file{}, err
	}
	hash := sha256.New()
	_, err = io.CopyN(io.MultiWriter(out, hash), rand.Reader, size)
	return file{size, hex.EncodeToString(hash.Sum(nil))}, errors.Join(err, out.Close())
}

// compare downloads through the tunnel and then directly, and sums up.
func (d *demo) compare(ctx context.Context) error {
	before, err := d.bytes()
	if err != nil {
		return err
	}
	d.screen.say("\ncurl downloads the file through the tunnel")
	tunnel, err := d.download(ctx, tunnelled, originPort, d.cut)
	if err != nil {
		return d.explain(ctx, err)
	}
	after, err := d.bytes()
	if err != nil {
		return err
	}
	r := result{origin: d.origin, tunnel: tunnel, cut: d.opts.cut, cutAt: d.cutAt, best: best()}
	for i, name := range names() {
		r.links = append(r.links, share{name, after[i] - before[i]})
	}
	if d.opts.direct && r.whole() == nil {
		if r.direct, err = d.yardstick(ctx); err != nil {
			return err
		}
	}
	d.screen.say("\n%s", r)
	return r.whole()
}

// bytes returns what has arrived at the edge on each link so far.
func (d *demo) bytes() (counts []uint64, err error) {
	links, err := d.pair.Links()
	for _, name := range names() {
		counts = append(counts, links[name].BytesDown)
	}
	return counts, err
}

// yardstick downloads the file over the best uplink alone, with all uplinks in
// order, from a port that the edge leaves alone.
func (d *demo) yardstick(ctx context.Context) (*gauge, error) {
	if err := d.lab.Blackhole(d.opts.cut, emu.Both, false); err != nil {
		return nil, err
	}
	if err := d.lab.Direct(best().Name); err != nil {
		return nil, err
	}
	d.screen.say("\nfor comparison, with %s restored: the same file directly over %s, around the tunnel", d.opts.cut, best().Name)
	return d.download(ctx, direct, pair.DirectPort, leave)
}

// explain adds what the agents said last to a failure.
func (d *demo) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w\nthe edge's last lines:\n%s\nthe cloud's last lines:\n%s", err, ending(d.pair.Edge.Output()), ending(d.pair.Cloud.Output()))
}

// ending returns the last lines of a log.
func ending(log string) string {
	const most = 8
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-most):], "\n  ")
}
