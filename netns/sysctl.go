package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Sysctl names are written as paths below /proc/sys, because interface names
// may hold dots. Files below net belong to the namespace of the calling thread.

func sysctlFile(path string) string { return filepath.Join("/proc/sys", path) }

func readSysctl(path string) (string, error) {
	data, err := os.ReadFile(sysctlFile(path))
	return strings.TrimSpace(string(data)), err
}

func writeSysctl(path, value string) error {
	if err := os.WriteFile(sysctlFile(path), []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %s = %s: %w", path, value, err)
	}
	return nil
}

func sysctlExists(path string) bool {
	_, err := os.Stat(sysctlFile(path))
	return err == nil
}

// setting is one value of an interface's conf directory.
type setting struct{ name, value string }

// applySettings writes settings of an interface that is ours; nothing is
// restored, as the values go with the interface. Settings that this kernel does
// not have are left out.
func applySettings(family int, device string, settings []setting) error {
	for _, s := range settings {
		err := writeSysctl(confPath(family, device, s.name), s.value)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func confPath(family int, device, name string) string {
	return fmt.Sprintf("net/ipv%d/conf/%s/%s", family, device, name)
}

// sysctlStep changes one value of the host. Whoever changes it in the meantime
// keeps the last word: only a value that still is what was set is restored.
func sysctlStep(path, value string) (step, bool, error) {
	was, err := readSysctl(path)
	if errors.Is(err, os.ErrNotExist) {
		return step{}, false, nil
	}
	if err != nil {
		return step{}, false, fmt.Errorf("sysctl: %w", err)
	}
	if was == value {
		return step{}, false, nil
	}
	return step{
		what: fmt.Sprintf("sysctl %s = %s", path, value),
		undo: []entry{{Do: undoSysctl, Path: path, Was: was, Set: value}},
		do:   func() error { return writeSysctl(path, value) },
	}, true, nil
}

func restoreSysctl(e entry) (bool, error) {
	now, err := readSysctl(e.Path)
	if errors.Is(err, os.ErrNotExist) || now == e.Was {
		return false, nil // the interface is gone, or nothing to do
	}
	if err != nil {
		return false, err
	}
	if now != e.Set && !e.Force {
		return false, nil
	}
	if e.Guard != "" {
		if guard, err := readSysctl(e.Guard); err == nil && guard != e.GuardWas {
			return false, nil
		}
	}
	err = writeSysctl(e.Path, e.Was)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// spoken are the address families that the host has.
func spoken() []int {
	if ipv6Usable() {
		return []int{4, 6}
	}
	return []int{4}
}

// ipv6Usable tells whether the host speaks IPv6 at all.
func ipv6Usable() bool {
	v, err := readSysctl("net/ipv6/conf/all/disable_ipv6")
	return err == nil && v == "0"
}
