################################################################################
#
# hal-boot
#
################################################################################

HAL_BOOT_VERSION = 0.1.0
HAL_BOOT_SITE = $(BR2_EXTERNAL_HAL_PATH)/services
HAL_BOOT_SITE_METHOD = local
HAL_BOOT_LICENSE = Apache-2.0
HAL_BOOT_LICENSE_FILES = LICENSE

# The licence is the whole project's and lies beside the services.
define HAL_BOOT_COPY_LICENSE
	cp $(BR2_EXTERNAL_HAL_PATH)/LICENSE $(@D)/LICENSE
endef
HAL_BOOT_POST_RSYNC_HOOKS += HAL_BOOT_COPY_LICENSE

# What the initrd's init does after it has opened the root, from its sources.
HAL_BOOT_SOURCES = appliance.c hardening.c log.c packs.c parse.c partitions.c report.c state.c verity.c

define HAL_BOOT_BUILD_CMDS
	$(TARGET_CC) $(TARGET_CFLAGS) $(TARGET_LDFLAGS) -Wall -Wextra \
		-I$(@D)/init -o $(@D)/hal-boot $(HAL_BOOT_PKGDIR)/boot.c \
		$(addprefix $(@D)/init/,$(HAL_BOOT_SOURCES))
endef

define HAL_BOOT_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/hal-boot $(TARGET_DIR)/usr/lib/hal/boot
endef

define HAL_BOOT_PERMISSIONS
	/usr/lib/hal/boot f 755 0 0 - - - - -
	/var/lib/hal d 755 0 0 - - - - -
endef

$(eval $(generic-package))
