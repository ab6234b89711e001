package haproxy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tandem/haproxy/haproxytest"
)

// sickDisk is a disk that takes nothing more, and how it gets well.
type sickDisk struct {
	name       string
	spoil      func(t *testing.T, dir string)
	heal       func(t *testing.T, dir string)
	complaints string // what the warnings say
}

var sickDisks = []sickDisk{
	{
		"full",
		func(t *testing.T, dir string) {
			t.Helper()
			f, err := os.Create(filepath.Join(dir, "filler"))
			if err != nil {
				t.Fatal(err)
			}
			page := make([]byte, os.Getpagesize())
			for err == nil {
				_, err = f.Write(page)
			}
			if closing := f.Close(); closing != nil || !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
				t.Fatal(err, closing)
			}
		},
		func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
				t.Fatal(err)
			}
		},
		syscall.ENOSPC.Error(),
	},
	{
		"read-only",
		func(t *testing.T, dir string) { t.Helper(); mount(t, dir, syscall.MS_REMOUNT|syscall.MS_RDONLY) },
		func(t *testing.T, dir string) { t.Helper(); mount(t, dir, syscall.MS_REMOUNT) },
		syscall.EROFS.Error(),
	},
}

// mount mounts a disk in memory that has room for three files and one more.
func mount(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, "size=16k"); err != nil {
		t.Fatal(err)
	}
}

// A disk that takes nothing holds up no switch: servers and map follow the
// decision, a reload that begins with the old file is put right, and each file is
// named in a warning until it is written.
func TestADiskThatTakesNothing(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	for _, sick := range sickDisks {
		t.Run(sick.name, func(t *testing.T) {
			p := haproxytest.New(t, strings.ReplaceAll(haproxytest.Global, "{dir}/state", "{dir}/disk/state")+haproxytest.Backend("be", 2)+
				"  http-request set-header X-Site %[str(default),map({dir}/disk/site.map,none)]\n")
			dir := filepath.Join(p.Dir, "disk")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			mount(t, dir, 0)
			t.Cleanup(func() {
				if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			cfg := Config{Socket: p.Socket, StateFile: filepath.Join(dir, "state"), MapFile: filepath.Join(dir, "site.map"), JournalFile: filepath.Join(dir, "journal")}
			if err := os.WriteFile(cfg.MapFile, []byte("default none\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			p.Start()
			i := run(t, cfg)
			on := func(d Desired, site string) Desired {
				d.Map = map[string]string{"default": site}
				return d
			}
			i.Set(on(toA, "a"))
			i.until("all as wanted", func(o Observation) bool { return o.Applied == 1 && o.Map.Current })
			fileSays(t, cfg.StateFile, func(table []Server) bool { return states(table) == onA })

			sick.spoil(t, dir)
			i.Set(on(toB, "b"))
			o, _ := i.until("servers as wanted, and each file named", func(o Observation) bool {
				return o.Applied == 2 && len(o.Warnings) == 2 && o.Map.Detail != ""
			})
			if really(t, p) != onB || !o.Alive || o.Reason != "" {
				t.Errorf("%s, %+v", really(t, p), o)
			}
			for n, kind := range []WarningKind{WarnJournal, WarnStateFile} {
				if w := o.Warnings[n]; w.Kind != kind || !strings.Contains(w.Detail, sick.complaints) || strings.Contains(w.Detail, "\n") {
					t.Errorf("%+v", w)
				}
			}
			if !strings.Contains(o.Map.Detail, sick.complaints) {
				t.Errorf("%+v", o.Map)
			}
			if got := p.Do("get map " + cfg.MapFile + " default"); !strings.Contains(got, `value="b"`) {
				t.Errorf("the map in memory: %s", got)
			}
			raw, err := os.ReadFile(cfg.StateFile)
			if old, failed := ParseServers(string(raw), nil); err != nil || failed != nil || states(old) != onA {
				t.Errorf("the file is not the old one: %s, %v, %v", states(old), err, failed)
			}

			p.Reload() // begins with the old file
			o, _ = i.until("the new process as wanted", func(o Observation) bool { return o.PID == p.PID() && o.Applied == 2 })
			if really(t, p) != onB || len(o.Held) != 0 {
				t.Errorf("%s, held %+v", really(t, p), o.Held)
			}

			sick.heal(t, dir)
			i.until("no warning", func(o Observation) bool { return len(o.Warnings) == 0 && o.Map.Current })
			fileSays(t, cfg.StateFile, func(table []Server) bool { return states(table) == onB })
			j, err := loadJournal(cfg.JournalFile)
			if err != nil || !j.Ours(ServerID{"be", "a-1"}) || j.Ours(ServerID{"be", "b-1"}) {
				t.Errorf("the journal says %+v, %v", j, err)
			}
			if file, err := os.ReadFile(cfg.MapFile); err != nil || string(file) != "default b\n" {
				t.Errorf("the map says %q, %v", file, err)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "*.tmp")); err != nil || slices.ContainsFunc(left, func(string) bool { return true }) {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}
