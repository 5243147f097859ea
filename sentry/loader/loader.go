// Package loader turns an executable file into a fresh address space: scripts (#!), ELF64 programs and their interpreters, the initial stack and
// the auxiliary vector (fs/exec.c, fs/binfmt_script.c, fs/binfmt_elf.c).
//
// It works in two steps, as execve does. Prepare reads the file, follows interpreter lines and checks what can be checked; the caller then knows
// which file runs (whose set-user-ID bits count) and can still fail. Image.Load maps it all into an empty MemoryManager. As that is not yet any
// task's, the caller can fail even then.
//
// Every value of a file is hostile: sizes are bounded before anything is allocated, sums are checked before they are used.
// The package has no locks and no state.
package loader

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
	"moat/sentry/memmap"
)

// File is an executable, opened by the rules of execve (a *vfs.FileDescription in VFSFile's wrapping).
type File interface {
	memmap.Identity
	// ReadAt is pread(2), with io.EOF for a short count at the end.
	ReadAt(p []byte, off int64) (int, error)
	// ConfigureMMap fills in opts.Mappable and Identity.
	ConfigureMMap(opts *memmap.MMapOpts) error
}

// Opener opens an interpreter by path, as open_exec does: ENOENT, EACCES, ... The File comes with a reference.
type Opener func(path string) (File, error)

const (
	// headSize is BINPRM_BUF_SIZE: what is read of a file to recognise it, and the bound on a #! line.
	headSize = 256
	// maxDepth is how many interpreters may be behind one another.
	maxDepth = 5
)

// Image is a program that Prepare found good.
type Image struct {
	// File is what runs: the program, or the interpreter of a script. Release drops it.
	File File
	// Argv are the arguments after interpreter lines were followed; Execfn is AT_EXECFN.
	Argv   []string
	Execfn string

	prog   *elfFile
	interp *elfFile
}

// Release drops the image's references.
func (im *Image) Release() {
	im.File.DecRef()
	if im.interp != nil {
		im.interp.file.DecRef()
	}
}

// Prepare reads the program in file, which was reached as filename; it takes over the reference to file, also in case of an error. inaccessible says that
// an interpreter could not open filename (a close-on-exec descriptor of execveat): scripts fail with ENOENT.
// Errors are execve(2)'s: ENOEXEC, ELOOP, ELIBBAD, EACCES, ENOENT, EINVAL, EIO.
func Prepare(file File, filename string, argv []string, inaccessible bool, open Opener) (*Image, error) {
	if len(argv) == 0 {
		argv = []string{""}
	}
	im := &Image{File: file, Argv: argv, Execfn: filename}
	path := filename
	for depth := 0; ; depth++ {
		if depth > maxDepth {
			im.File.DecRef()
			return nil, unix.ELOOP
		}
		var head [headSize]byte
		if _, err := readFull(im.File, head[:], 0); err != nil {
			im.File.DecRef()
			return nil, err
		}
		if head[0] != '#' || head[1] != '!' {
			if err := im.prepareELF(head[:], open); err != nil {
				im.File.DecRef()
				return nil, err
			}
			return im, nil
		}
		interp, arg, hasArg, ok := parseScript(&head)
		err := error(nil)
		var next File
		switch {
		case !ok:
			err = unix.ENOEXEC
		case inaccessible:
			err = unix.ENOENT
		default:
			next, err = open(interp)
		}
		im.File.DecRef()
		if err != nil {
			return nil, err
		}
		args := make([]string, 0, len(im.Argv)+2)
		args = append(args, interp)
		if hasArg {
			args = append(args, arg)
		}
		im.Argv = append(append(args, path), im.Argv[1:]...)
		im.File, path = next, interp
	}
}

// parseScript takes a #! line apart, exactly as load_script does.
func parseScript(head *[headSize]byte) (interp, arg string, hasArg, ok bool) {
	buf := head[:]
	end := -1
	for i, c := range buf {
		if c == 0 {
			break
		}
		if c == '\n' {
			end = i
			break
		}
	}
	if end < 0 {
		// The line goes on behind the buffer, or the file has no newline: fine if the path is whole.
		i := skipBlanks(buf, 2, headSize-1)
		if i < 0 || terminator(buf, i, headSize-1) < 0 {
			return
		}
		end = headSize - 1
	}
	for isBlank(buf[end-1]) {
		end--
	}
	name := skipBlanks(buf, 2, end)
	if name < 0 || name == end {
		return
	}
	sep := terminator(buf, name, end)
	stop := end
	if sep >= 0 {
		stop = sep
		if buf[sep] != 0 {
			if a := skipBlanks(buf, sep, end); a >= 0 {
				arg, hasArg = cString(buf[a:end]), true
			}
		}
	}
	return cString(buf[name:stop]), arg, hasArg, true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// skipBlanks returns the first position in [i, last] that is no blank, or -1.
func skipBlanks(b []byte, i, last int) int {
	for ; i <= last; i++ {
		if !isBlank(b[i]) {
			return i
		}
	}
	return -1
}

// terminator returns the first blank or NUL in [i, last], or -1.
func terminator(b []byte, i, last int) int {
	for ; i <= last; i++ {
		if isBlank(b[i]) || b[i] == 0 {
			return i
		}
	}
	return -1
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// readFull reads len(p) bytes at off, or up to the end of the file.
func readFull(f File, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		c, err := f.ReadAt(p[n:], off+int64(n))
		n += c
		if err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			if err == unix.EINTR {
				continue
			}
			return n, err
		}
		if c == 0 {
			break
		}
	}
	return n, nil
}
