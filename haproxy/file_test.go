package haproxy

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorded is a disk that writes down what it is asked for, and fails at a step.
func recorded(log *[]string, failing string) disk {
	step := func(name string, do func() error) error {
		*log = append(*log, name)
		if name == failing {
			return errors.New("no " + name)
		}
		return do()
	}
	return disk{
		write:  func(f *os.File, b []byte) error { return step("write", func() error { return realDisk.write(f, b) }) },
		sync:   func(f *os.File) error { return step("sync", func() error { return realDisk.sync(f) }) },
		rename: func(from, to string) error { return step("rename", func() error { return realDisk.rename(from, to) }) },
		settle: func(dir string) error {
			return step("sync of "+filepath.Base(dir), func() error { return realDisk.settle(dir) })
		},
	}
}

func TestAFileIsOnDiskBeforeItTakesThePlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "state")
	for _, c := range []struct {
		durable bool
		failing string
		want    string // steps
		there   string // content then
	}{
		{true, "", "write, sync, rename, sync of d", "new"},
		{false, "", "write, rename", "new"},
		{true, "write", "write", "old"},
		{true, "sync", "write, sync", "old"},
		{true, "rename", "write, sync, rename", "old"},
		{true, "sync of d", "write, sync, rename, sync of d", "new"}, // and an error: it may be the old after a crash
	} {
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		var log []string
		err := recorded(&log, c.failing).replace(path, []byte("new"), 0o600, c.durable)
		if (err != nil) != (c.failing != "") || err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("failing %q: %v", c.failing, err)
		}
		if got := strings.Join(log, ", "); got != c.want {
			t.Errorf("failing %q, durable %v: %s, want %s", c.failing, c.durable, got, c.want)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != c.there {
			t.Errorf("failing %q: %q %v", c.failing, b, err)
		}
		if _, err := os.Stat(path + ".tmp"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("failing %q: the temporary file is left: %v", c.failing, err)
		}
	}
}

// tableOf is an answer to `show servers state` with n servers.
func tableOf(n int) string {
	var b strings.Builder
	b.WriteString(tableStart + "srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord\n")
	for i := range n {
		id := strconv.Itoa(i + 1)
		b.WriteString("3 be " + id + " a-" + id + " 127.0.0.1 2 8 1 1 5 1 0 0 0 0 0 0 - 9 -\n")
	}
	return b.String()
}

// readWhole parses a file over and over until it is told to stop. It returns how
// often it met each number of servers, and how often something that is no whole
// table.
func readWhole(path string, stop <-chan struct{}) (met map[int]int, torn int) {
	met = make(map[int]int)
	for {
		select {
		case <-stop:
			return met, torn
		default:
		}
		b, err := os.ReadFile(path)
		if err != nil {
			torn++
			continue
		}
		if table, err := ParseServers(string(b), nil); err == nil {
			met[len(table)]++
		} else {
			torn++
		}
	}
}

func TestAReaderNeverSeesATornFile(t *testing.T) {
	const few, many, times = 50, 2000, 200
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, []byte(tableOf(few)), 0o600); err != nil {
		t.Fatal(err)
	}
	contents := [][]byte{[]byte(tableOf(many)), []byte(tableOf(few))}
	stop := make(chan struct{})
	var met map[int]int
	var torn int
	var reader sync.WaitGroup
	reader.Go(func() { met, torn = readWhole(path, stop) })
	for n := range times {
		if err := replaceFile(path, contents[n%2], 0o600, true); err != nil {
			t.Error(err)
			break
		}
		time.Sleep(time.Millisecond) // for the reader to see this one
	}
	close(stop)
	reader.Wait()
	t.Logf("met %v", met)
	if torn > 0 {
		t.Errorf("%d readings of no whole file", torn)
	}
	whole := met[few] + met[many]
	for n, often := range met {
		if !slices.Contains([]int{few, many}, n) {
			t.Errorf("%d readings of %d servers", often, n)
		}
	}
	if met[few] == 0 || met[many] == 0 || whole < times/4 {
		t.Errorf("the reader saw %d files only: this tests nothing", whole)
	}
}
