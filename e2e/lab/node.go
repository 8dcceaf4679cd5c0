package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	edgeNode   = "edge"
	cloudNode  = "cloud"
	originNode = "origin"
	emuNode    = "emu"
	clientNode = "client"
	guestNode  = "guest"
)

// edgeName is what an edge is called, from 1: "edge", "edge2".
func edgeName(k int) string {
	if k == 1 {
		return edgeNode
	}
	return edgeNode + strconv.Itoa(k)
}

// guestName is what the client of an edge after the first is called: "guest2".
func guestName(k int) string { return guestNode + strconv.Itoa(k) }

// node is one namespace of the lab.
type node struct {
	name string // "edge"
	full string // of the namespace
	ns   netns.NsHandle
	net  *netlink.Handle
}

// canonical turns "client" into "client1".
func canonical(name string) string {
	if name == clientNode {
		return clientNode + "1"
	}
	return name
}

// shareNames makes the directory of named namespaces a shared mount of its own, as ip
// netns does before its first one. Were it left to ip, its bind mount would cover the
// namespaces that exist by then, and nobody could remove them any more.
func shareNames() error {
	if err := os.MkdirAll(namesDir, 0o755); err != nil {
		return err
	}
	share := func() error { return unix.Mount("", namesDir, "", unix.MS_SHARED|unix.MS_REC, "") }
	err := share()
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		if err = unix.Mount(namesDir, namesDir, "", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = share()
		}
	}
	if err != nil {
		return fmt.Errorf("share %s: %w", namesDir, err)
	}
	return nil
}

// newNode makes a named namespace with its loopback up.
func newNode(name, full string) (*node, error) {
	n := &node{name: name, full: full, ns: netns.None()}
	if err := n.create(); err != nil {
		n.close()
		return nil, fmt.Errorf("namespace %s: %w", full, err)
	}
	return n, nil
}

func (n *node) create() error {
	// NewNamed moves the calling thread into the new namespace; inside leaves again.
	root, err := netns.Get()
	if err != nil {
		return err
	}
	defer root.Close()
	err = inside(root, func() error {
		var err error
		n.ns, err = netns.NewNamed(n.full)
		return err
	})
	if err != nil {
		return err
	}
	if n.net, err = netlink.NewHandleAt(n.ns); err != nil {
		return err
	}
	lo, err := n.net.LinkByName("lo")
	if err != nil {
		return err
	}
	return n.net.LinkSetUp(lo)
}

// close deletes the namespace. Processes in it must be gone, or it lives on unnamed.
func (n *node) close() error {
	if n.net != nil {
		n.net.Close()
	}
	if !n.ns.IsOpen() {
		return nil
	}
	n.ns.Close()
	return netns.DeleteNamed(n.full)
}

// sysctl sets one key, written with slashes: "net/ipv4/ip_forward".
func (n *node) sysctl(key, value string) error {
	// /proc/sys/net shows the namespace of the thread that opens it.
	return inside(n.ns, func() error {
		return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644)
	})
}

// Do runs fn inside a node's namespace and returns its error. Sockets that fn opens
// belong to that namespace for good, but goroutines that it starts run outside. fn runs
// on a goroutine of its own: it must not call t.Fatal.
func (l *Lab) Do(node string, fn func() error) error {
	n, err := l.node(node)
	if err != nil {
		return err
	}
	return inside(n.ns, fn)
}

// Sysctl sets a key such as "net/ipv4/tcp_congestion_control" in a node.
func (l *Lab) Sysctl(node, key, value string) error {
	n, err := l.node(node)
	if err != nil {
		return err
	}
	if err := n.sysctl(strings.ReplaceAll(key, ".", "/"), value); err != nil {
		return fmt.Errorf("sysctl on %s: %w", node, err)
	}
	return nil
}

func (l *Lab) node(name string) (*node, error) {
	for _, n := range l.nodes {
		if n.name == canonical(name) {
			return n, nil
		}
	}
	return nil, fmt.Errorf("lab %s has no node %q", l.spec.Name, name)
}

var errLeft = errors.New("the function ended its goroutine instead of returning")

// inside runs fn on a thread in the namespace.
func inside(ns netns.NsHandle, fn func() error) error {
	result := make(chan error, 1)
	go runInside(ns, fn, result)
	return <-result
}

// runInside sends exactly one result, even if fn ends the goroutine.
func runInside(ns netns.NsHandle, fn func() error, result chan<- error) {
	err := errLeft
	defer func() { result <- err }()
	runtime.LockOSThread()
	home, getErr := netns.Get()
	if getErr != nil {
		err = getErr
		return
	}
	defer func() {
		// A thread that cannot return home stays locked, so Go drops it with the goroutine.
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		home.Close()
	}()
	if setErr := netns.Set(ns); setErr != nil {
		err = fmt.Errorf("enter namespace: %w", setErr)
		return
	}
	err = fn()
}
