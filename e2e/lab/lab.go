package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"hawser/e2e/emu"
)

// prefix begins the name of every namespace and directory of every lab.
const prefix = "hwlab-"

// Lab is a running lab. Its methods may be called from several goroutines.
type Lab struct {
	spec  Spec
	id    string // hwlab-NAME-PID-N, unique on this machine
	dir   string
	nodes []*node
	emu   *emu.Client // nil if all uplinks are unshaped
	pump  *Proc
	base  map[string]state // what the host and the nodes looked like before anything ran

	close    sync.Once
	closeErr error

	mu     sync.Mutex
	procs  []*Proc
	closed bool
}

// New builds the lab and starts the emulator. It needs root. On an error nothing is
// left behind. The caller calls Close.
func New(spec Spec) (*Lab, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	l := &Lab{spec: spec, base: map[string]state{}}
	if err := l.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("lab %s: %w", spec.Name, err), l.Close())
	}
	return l, nil
}

func (l *Lab) build() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, to make network namespaces")
	}
	if err := l.claimID(); err != nil {
		return err
	}
	if err := shareNames(); err != nil {
		return err
	}
	host, err := readHost()
	if err != nil {
		return err
	}
	l.base[hostNode] = host
	if err := l.makeNodes(); err != nil {
		return err
	}
	if err := errors.Join(l.wireLAN(), l.wireOrigin()); err != nil {
		return err
	}
	for i := range l.spec.Uplinks {
		if err := l.wireUplink(i + 1); err != nil {
			return err
		}
	}
	// The cloud answers clients through the uplink of their edge's default route.
	for k := 1; k <= l.spec.Edges; k++ {
		if err := l.Direct(l.spec.first(k).Name); err != nil {
			return err
		}
	}
	if err := l.startEmulator(); err != nil {
		return err
	}
	return l.snapshotNodes()
}

// claimID finds a free number for this process and makes the lab's directory.
func (l *Lab) claimID() error {
	for n := 1; ; n++ {
		l.id = fmt.Sprintf("%s%s-%d-%d", prefix, l.spec.Name, os.Getpid(), n)
		l.dir = filepath.Join(os.TempDir(), l.id)
		err := os.Mkdir(l.dir, 0o755)
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrExist) {
			l.dir = ""
			return err
		}
	}
}

func (l *Lab) makeNodes() error {
	names := []string{edgeNode, cloudNode, originNode, emuNode}
	for i := range l.spec.Clients {
		names = append(names, clientNode+strconv.Itoa(i+1))
	}
	for k := 2; k <= l.spec.Edges; k++ {
		names = append(names, edgeName(k), guestName(k))
	}
	for _, name := range names {
		n, err := newNode(name, l.Namespace(name))
		if err != nil {
			return err
		}
		l.nodes = append(l.nodes, n)
		if err := l.prepareKernel(n); err != nil {
			return err
		}
	}
	return nil
}

// must returns a node that makeNodes has made.
func (l *Lab) must(name string) *node {
	n, err := l.node(name)
	if err != nil {
		panic(err) // a bug of this package, never of the caller's input
	}
	return n
}

// Namespace returns a namespace name that belongs to this lab: that of a node, or any
// other for a program that makes its own. Close and CleanStale remove it too.
func (l *Lab) Namespace(suffix string) string { return l.id + "-" + canonical(suffix) }

// Dir returns the lab's directory, which Close removes.
func (l *Lab) Dir() string { return l.dir }

// WriteFile writes a file below the lab's directory and returns its full name.
func (l *Lab) WriteFile(name, content string) (string, error) {
	full := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return "", err
	}
	return full, os.WriteFile(full, []byte(content), 0o600)
}

// Close ends all processes of the lab and removes its namespaces and files. It may be
// called again, and returns the same error.
func (l *Lab) Close() error {
	l.close.Do(l.tearDown)
	return l.closeErr
}

func (l *Lab) tearDown() {
	l.mu.Lock()
	l.closed = true
	procs := l.procs
	l.mu.Unlock()
	if l.emu != nil {
		l.emu.Close()
	}
	var errs []error
	for i := len(procs) - 1; i >= 0; i-- {
		procs[i].Stop()
	}
	if l.id != "" {
		errs = append(errs, killInside(l.namespaces()))
	}
	for _, n := range l.nodes {
		errs = append(errs, n.close())
	}
	if l.id != "" {
		errs = append(errs, deleteNamespaces(l.namespaces()))
	}
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	l.closeErr = errors.Join(errs...)
}
