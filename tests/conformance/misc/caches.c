// What /sys tells of the processor's caches.
#include <conf.h>

static void show(const char *dir, const char *file) {
	char path[128], b[64] = "";
	snprintf(path, sizeof path, "/sys/devices/system/cpu/%s/%s", dir, file);
	int f = open(path, O_RDONLY);
	if (f < 0) {
		P("%s/%s: %s", dir, file, conf_errno(errno));
		return;
	}
	b[read(f, b, sizeof b - 1)] = 0;
	P("%s/%s: %s", dir, file, b);
	close(f);
}

int main(void) {
	for (int i = 0; i < 5; i++) {
		char dir[32];
		sprintf(dir, "cpu0/cache/index%d", i);
		// Which CPUs share one is not told of the host's here.
		static const char *files[] = {"level", "type", "size", "ways_of_associativity", "number_of_sets", "coherency_line_size", "physical_line_partition"};
		for (int k = 0; k < 7; k++)
			show(dir, files[k]);
	}
}
