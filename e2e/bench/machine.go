package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// thisMachine describes what the figures were taken on.
func thisMachine() string {
	model := "unknown processor"
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	var u unix.Utsname
	release := "?"
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%d cores of %s, Linux %s, %s, default congestion control %s",
		runtime.NumCPU(), model, release, runtime.Version(), oneLine("/proc/sys/net/ipv4/tcp_congestion_control"))
}

// loadAverage is that of the last minute. The lab's own work counts in it.
func loadAverage() string {
	first, _, _ := strings.Cut(oneLine("/proc/loadavg"), " ")
	return first
}

// processors is what all processors have done since the start; zero where it cannot be read.
func processors() procfs.CPUStat {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return procfs.CPUStat{}
	}
	stat, err := fs.Stat()
	if err != nil {
		return procfs.CPUStat{}
	}
	return stat.CPUTotal
}

// stolen is the part of the time in which a virtual machine had something to do that its
// host gave to others, between two moments: the load average does not show it.
func stolen(a, b procfs.CPUStat) float64 {
	busy := func(c procfs.CPUStat) float64 { return c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal }
	if all := busy(b) - busy(a); all > 0 {
		return (b.Steal - a.Steal) / all
	}
	return 0
}

func oneLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(text))
}

// ownCPU is the processor time of this process: of all clients and servers.
func ownCPU() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// reading is the state of all meters at one moment.
type reading struct {
	at               time.Time
	bytes            int64
	edge, cloud, own time.Duration
}

// window is what was measured between two readings.
type window struct {
	Seconds float64 `json:"s"`
	Bytes   int64   `json:"bytes"`
	Edge    float64 `json:"edge_cpu_s"`
	Cloud   float64 `json:"cloud_cpu_s"`
	Ends    float64 `json:"ends_cpu_s"`
}

func between(a, b reading) window {
	return window{
		Seconds: b.at.Sub(a.at).Seconds(), Bytes: b.bytes - a.bytes,
		Edge: (b.edge - a.edge).Seconds(), Cloud: (b.cloud - a.cloud).Seconds(), Ends: (b.own - a.own).Seconds(),
	}
}

// mbps is the goodput in Mbit/s.
func (w window) mbps() float64 { return float64(w.Bytes) * 8 / 1e6 / w.Seconds }

// perGB turns processor seconds into those per gigabyte of payload.
func (w window) perGB(cpu float64) float64 {
	if w.Bytes == 0 {
		return 0
	}
	return cpu / (float64(w.Bytes) / 1e9)
}
