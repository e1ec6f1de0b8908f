################################################################################
#
# hal-appliance
#
################################################################################

HAL_APPLIANCE_LICENSE = Apache-2.0
HAL_APPLIANCE_DEPENDENCIES = \
	hal-attestor hal-boot hal-engine hal-gateway hal-os hal-selector

# Programs and data of its own: at these paths no other package has a file.
define HAL_APPLIANCE_INSTALL_TARGET_CMDS
	$(call hal-install-rendered, \
		etc/hal/provision.json etc/hal/ssh/*? usr/lib/clock-epoch \
		usr/lib/hal/manifest.json usr/lib/hal/packs \
		usr/lib/sysctl.d/hal.conf usr/lib/sysusers.d/hal.conf)
endef

define HAL_APPLIANCE_INSTALL_INIT_SYSTEMD
	$(call hal-install-rendered, \
		etc/systemd/journald.conf.d/hal.conf \
		etc/systemd/network/20-wired.network \
		etc/systemd/system.conf.d/hal.conf \
		etc/systemd/system/*.d/hal.conf \
		usr/lib/systemd/system/*.target \
		usr/lib/systemd/system/*.slice \
		usr/lib/systemd/system/hal-ssh*? \
		usr/lib/tmpfiles.d/hal.conf)
endef

define HAL_APPLIANCE_INSTALL_INIT_SYSV
	$(call hal-install-rendered, \
		usr/lib/hal/network usr/lib/hal/ssh? usr/lib/hal/supervise \
		usr/lib/hal/udhcpc)
endef

# What other packages have too, and Buildroot itself at last: these are the
# appliance's, and are put in their places when the image is made.
define HAL_APPLIANCE_TAKE_PLACES
	$(call hal-install-rendered, \
		etc/hostname etc/hosts etc/resolv.conf usr/lib/os-release)
	ln -sfn ../usr/lib/os-release $(TARGET_DIR)/etc/os-release
endef
HAL_APPLIANCE_ROOTFS_PRE_CMD_HOOKS += HAL_APPLIANCE_TAKE_PLACES

ifeq ($(BR2_INIT_SYSTEMD),y)
# Links: the target that it boots into, and what of systemd is none of it.
define HAL_APPLIANCE_TAKE_SYSTEMD
	$(call hal-install-rendered, \
		etc/machine-id etc/systemd/system/* \
		etc/systemd/system-generators/* \
		usr/lib/systemd/system/*.mount)
endef
HAL_APPLIANCE_ROOTFS_PRE_CMD_HOOKS += HAL_APPLIANCE_TAKE_SYSTEMD
else
define HAL_APPLIANCE_TAKE_SYSV
	$(call hal-install-rendered, \
		etc/fstab etc/inittab etc/init.d/rc[KS] \
		etc/init.d/S01syslogd etc/init.d/S02klogd \
		etc/init.d/S40network etc/init.d/S99hal-ssh? \
		usr/bin/* usr/sbin/*)
endef
HAL_APPLIANCE_ROOTFS_PRE_CMD_HOOKS += HAL_APPLIANCE_TAKE_SYSV
endif

# An engine that the spec names and no package has made would fail at each start.
define HAL_APPLIANCE_CHECK_ENGINES
	cd $(TARGET_DIR)/etc/hal/engines && for file in *.env; do \
		test -d $(TARGET_DIR)/opt/$${file%.env} || { \
			echo "hal-appliance: no package has made the engine $${file%.env}" >&2; \
			exit 1; \
		}; \
	done
endef
HAL_APPLIANCE_ROOTFS_PRE_CMD_HOOKS += HAL_APPLIANCE_CHECK_ENGINES

define HAL_APPLIANCE_PERMISSIONS
	/usr/lib/hal d 755 0 0 - - - - -
	/etc/hal d 755 0 0 - - - - -
endef

$(eval $(generic-package))
