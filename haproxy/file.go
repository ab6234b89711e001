package haproxy

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// disk is what replacing a file asks of one, so that a test can see the order and
// have a step fail.
type disk struct {
	write  func(*os.File, []byte) error
	sync   func(*os.File) error
	rename func(from, to string) error
	settle func(dir string) error // a rename is on disk when its directory is
}

var realDisk = disk{
	write:  func(f *os.File, b []byte) error { _, err := f.Write(b); return err },
	sync:   (*os.File).Sync,
	rename: os.Rename,
	settle: syncPath,
}

// replaceFile puts a whole file in the place of another: a reader sees the old
// one or the new one. If it is durable, that is so after a crash of the machine
// too, and it takes as long as the disk does.
func replaceFile(path string, content []byte, mode os.FileMode, durable bool) error {
	return realDisk.replace(path, content, mode, durable)
}

func (d disk) replace(path string, content []byte, mode os.FileMode, durable bool) (err error) {
	temporary := path + ".tmp"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary)
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err = d.write(f, content); err == nil && durable {
		err = d.sync(f)
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	if err = d.rename(temporary, path); err != nil || !durable {
		return err
	}
	return d.settle(filepath.Dir(path))
}

// syncPath has a file or directory written to disk.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}
